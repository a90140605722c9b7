"""A small Flask app that says of itself what the sample app says."""

import os
import time
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/ready")
def ready() -> str:
    """Say that all is well."""
    return "ready"


@app.get("/api/about")
def about() -> Response:
    """Say which release, slot and process answers."""
    return jsonify(release=os.environ["SLIPWAY_RELEASE"], slot=os.environ["SLIPWAY_SLOT"], pid=os.getpid())


@app.get("/api/client")
def client() -> Response:
    """Say who the client is, as the app sees it."""
    return jsonify(address=request.remote_addr, scheme=request.scheme, host=request.host)


@app.post("/api/echo")
def echo() -> bytes:
    """Return the body as it came."""
    return request.get_data()


@app.get("/api/slow")
def slow() -> Response:
    """Return a download of two seconds."""

    def lines() -> Iterator[str]:
        for number in range(20):
            yield f"{number}\n"
            time.sleep(0.1)
        yield "end\n"

    return Response(lines(), mimetype="text/plain")
