"""Two apps that test_servers.py serves, for ASGI and for WSGI: what they were told of the client, at once or slowly."""

import asyncio
import logging
import multiprocessing
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

SLOW_SECONDS = 1.5
Message = dict[str, Any]


def family() -> str:
    """Whether this process may have children by multiprocessing, and whether what it starts ignores SIGTERM."""
    status = subprocess.run(["grep", "SigIgn", "/proc/self/status"], check=True, capture_output=True, text=True).stdout
    ignores = int(status.split()[1], 16) >> (signal.SIGTERM - 1) & 1
    return f"{not multiprocessing.current_process().daemon} {bool(ignores)}"


def logs() -> None:
    """Log on two levels."""
    logging.getLogger("shop").info("sold")
    logging.getLogger("shop").warning("scarce")


async def asgi(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "heard"})
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW_SECONDS)
    if scope["path"] == "/logs":
        logs()
    body = family() if scope["path"] == "/family" else f"{scope['client'][0]} {scope['scheme']}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body.encode()})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW_SECONDS)
    if environ["PATH_INFO"] == "/logs":
        logs()
    body = f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}"
    if environ["PATH_INFO"] == "/family":
        body = family()
    if environ["PATH_INFO"] == "/server":
        body = f"{environ['SERVER_NAME']} {environ['SERVER_PORT']} {environ.get('REMOTE_PORT')}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]


def make() -> Any:
    return asgi
