"""Tells what it was asked: each request since the last look, as the app saw it."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# There is one worker.
SEEN: list[dict[str, Any]] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Note a request and answer it; /seen tells what was noted, and begins anew."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = b"here I am"
    if scope["path"] == "/seen":
        answer = json.dumps(SEEN).encode()
        SEEN.clear()
    elif scope["path"] != "/ready":
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        target = scope["raw_path"].decode("latin-1")
        SEEN.append({"method": scope["method"], "path": target, "headers": headers, "body": body.decode("latin-1")})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer})
