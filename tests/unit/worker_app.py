"""The ASGI app that test_worker.py and test_check.py serve: no dependency, one path per behaviour."""

import asyncio
import atexit
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PLAIN = [(b"content-type", b"text/plain")]


log = logging.getLogger("shop")


def note(line: str) -> None:
    """Append to the journal of this run; O_APPEND keeps the lines of several workers whole."""
    if journal := os.environ.get("WORKER_JOURNAL"):
        with Path(journal).open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


note("imported")


async def app(scope: Message, receive: Receive, send: Send) -> None:
    await {"lifespan": lifespan, "http": http, "websocket": websocket}[scope["type"]](scope, receive, send)


async def lifespan(_scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    note("up")
    atexit.register(note, "exit")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note("down")
    await send({"type": "lifespan.shutdown.complete"})


async def http(scope: Message, receive: Receive, send: Send) -> None:
    body, more = b"", scope["path"] != "/unread"
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    start = {"type": "http.response.start", "status": 200, "headers": PLAIN}
    if scope["path"].startswith("/log/"):
        LOGS[scope["path"].removeprefix("/log/")]()
    if scope["path"] == "/sleep":
        await asyncio.sleep(float(scope["query_string"]))
    if scope["path"] == "/stream":
        await send(start)
        for _ in range(10):
            await asyncio.sleep(float(scope["query_string"]) / 10)
            await send({"type": "http.response.body", "body": b".", "more_body": True})
    elif scope["path"] == "/late":
        await send(start)
        await asyncio.sleep(float(scope["query_string"]))
    elif scope["path"] == "/stuck":
        await asyncio.Event().wait()
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


async def websocket(_scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{os.getpid()} {event['text']}"})
    note(f"websocket {event['code']}")


class Odd:
    """What cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail() -> None:
    raise ValueError("one\ntwo")


def log_exception() -> None:
    try:
        fail()
    except ValueError:
        log.exception("the sale failed", stack_info=True)


def log_odd() -> None:
    log.warning("%d of %s", "three", "four")
    log.warning(Odd())
    log.warning("%s", {"no": b"text", "half": "\udc80"})


def run_thread() -> None:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def set_up() -> None:
    """Have logging a way of the app's own, without a word of the root logger."""
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("own %(message)s"))
    log.addHandler(own)
    log.info("mine")


LOGS: dict[str, Callable[[], None]] = {
    "info": lambda: log.info("sold %d\n%s", 3, "apples à 1 €"),
    "debug": lambda: log.debug("for nobody"),
    "exception": log_exception,
    "odd": log_odd,
    "long": lambda: log.info("%s", "\x01" * 1_000_000),
    "halves": lambda: log.info("%s", "\udc80" * 10_000),
    "warning": lambda: warnings.warn("old\nways", UserWarning, stacklevel=1),
    "uncaught": fail,
    "thread": run_thread,
    "own": set_up,
}
