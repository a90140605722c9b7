"""An app that has been taken over: it does what it is told, and says how that went."""

import json
import readline  # noqa: F401 - it tries setfsuid(2) on Debian 13, which must not be its end
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from attempts import Scene, try_all

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Try whatever it takes against the scene in the request's body."""
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
    said = json.dumps(try_all(Scene(**json.loads(body)))) if body else "here I am"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said.encode()})
