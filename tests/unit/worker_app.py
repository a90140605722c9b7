"""The ASGI app that test_worker.py and test_check.py serve: no dependency, one path per behaviour."""

import asyncio
import atexit
import os
from pathlib import Path

PLAIN = [(b"content-type", b"text/plain")]


def note(line):
    """Append to the journal of this run; O_APPEND keeps the lines of several workers whole."""
    if journal := os.environ.get("WORKER_JOURNAL"):
        with Path(journal).open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


async def app(scope, receive, send):
    await {"lifespan": lifespan, "http": http, "websocket": websocket}[scope["type"]](
        scope, receive, send
    )


async def lifespan(scope, receive, send):
    await receive()
    note("up")
    atexit.register(note, "exit")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note("down")
    await send({"type": "lifespan.shutdown.complete"})


async def http(scope, receive, send):
    body, more = b"", scope["path"] != "/unread"
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    start = {"type": "http.response.start", "status": 200, "headers": PLAIN}
    if scope["path"] == "/sleep":
        await asyncio.sleep(float(scope["query_string"]))
    if scope["path"] == "/stream":
        await send(start)
        for _ in range(10):
            await asyncio.sleep(float(scope["query_string"]) / 10)
            await send({"type": "http.response.body", "body": b".", "more_body": True})
    elif scope["path"] == "/stuck":
        while True:
            await asyncio.sleep(3600)
    elif scope["path"] == "/client":
        body = f"{scope['scheme']} {scope['client']}".encode()
        await send(start)
    else:
        body = body or str(os.getpid()).encode()
        start["headers"] = [*PLAIN, (b"content-length", str(len(body)).encode())]
        await send(start)
    await send({"type": "http.response.body", "body": body})
    if scope["path"] == "/background":
        await asyncio.sleep(float(scope["query_string"]))
        note("background")


async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{os.getpid()} {event['text']}"})
    note(f"websocket {event['code']}")
