"""An ASGI app that does next to nothing, so that what is measured is what stands before it."""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VERSION = "1"
JSON = b"application/json"
BYTES = b"application/octet-stream"
ANSWERS = {
    "/": (JSON, json.dumps({"message": "here I am", "items": list(range(16))}).encode()),
    "/large": (BYTES, b"x" * 100_000),
    "/ready": (JSON, b"{}"),
    "/api/about": (JSON, json.dumps({"release": VERSION, "slot": os.environ.get("SLIPWAY_SLOT", "")}).encode()),
}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status = 200
    if scope["path"] == "/upload":
        kind, content = JSON, json.dumps({"bytes": len(body)}).encode()
    elif scope["path"] == "/api/echo":
        kind, content = BYTES, body
    elif scope["path"] in ANSWERS:
        kind, content = ANSWERS[scope["path"]]
    else:
        status, kind, content = 404, JSON, b"{}"
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def echo(receive: Receive, send: Send) -> None:
    """Send back what comes over a WebSocket."""
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            return
