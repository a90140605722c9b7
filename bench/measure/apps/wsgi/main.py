"""The same as WSGI: an app that does next to nothing, so that what is measured is what stands before it."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

VERSION = "1"
JSON = "application/json"
BYTES = "application/octet-stream"
ANSWERS = {
    "/": (JSON, json.dumps({"message": "here I am", "items": list(range(16))}).encode()),
    "/large": (BYTES, b"x" * 100_000),
    "/ready": (JSON, b"{}"),
    "/api/about": (JSON, json.dumps({"release": VERSION, "slot": os.environ.get("SLIPWAY_SLOT", "")}).encode()),
}


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer one request."""
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    status = "200 OK"
    if path == "/upload":
        kind, content = JSON, json.dumps({"bytes": len(body)}).encode()
    elif path == "/api/echo":
        kind, content = BYTES, body
    elif path in ANSWERS:
        kind, content = ANSWERS[path]
    else:
        status, kind, content = "404 Not Found", JSON, b"{}"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(content)))])
    return [content]
