"""A FastAPI app as tutorials begin one, with what the load asks for."""

import os

from fastapi import FastAPI, Request, Response

VERSION = "1"

app = FastAPI()


@app.get("/")
async def root() -> dict[str, object]:
    """Return a little JSON."""
    return {"message": "Hello World", "items": list(range(16))}


@app.get("/ready")
async def ready() -> dict[str, str]:
    """Say that it can serve."""
    return {}


@app.get("/api/about")
async def about() -> dict[str, str]:
    """Return which version answers."""
    return {"release": VERSION, "slot": os.environ.get("SLIPWAY_SLOT", "")}


@app.post("/api/echo")
async def echo(request: Request) -> Response:
    """Return the body as it came."""
    return Response(await request.body(), media_type="application/octet-stream")
