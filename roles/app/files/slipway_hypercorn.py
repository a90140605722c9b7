"""Starts hypercorn, which before 0.16 knows no max_requests."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import signal
import sys

import slipway_server
from hypercorn.config import Config  # type: ignore[import-not-found]
from hypercorn.run import run  # type: ignore[import-not-found]


def application() -> slipway_server.Asgi:
    """The app, told who its client is; hypercorn's own middleware copies all that the app's lifespan has made."""
    # Once the first worker has drained, hypercorn ends the others so; they know by other means that they are to go. Not
    # SIG_IGN, which all that the app starts would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    app = slipway_server.asgi()

    async def told(scope: slipway_server.Message, receive: slipway_server.Receive, send: slipway_server.Send) -> None:
        if scope["type"] != "lifespan":
            headers = dict(scope["headers"])
            client, scheme = headers.get(b"x-forwarded-for", b""), headers.get(b"x-forwarded-proto", b"")
            if client:
                scope["client"] = (client.decode("latin-1"), 0)
            if scheme == b"https":
                scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            # The drain is over; of itself, hypercorn would call that an error.
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1012})
            raise

    return told


def main() -> int:
    """Run the server, and return its exit status."""
    options = slipway_server.begin("loops", "hypercorn", "0.16")
    config = Config()
    config.application_path = "asgi:slipway_hypercorn:application()"
    config.bind = [f"fd://{descriptor}" for descriptor in slipway_server.descriptors()]
    # Beside an app's own hypercorn there may be none.
    config.worker_class = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    config.workers = options.size.workers
    # A daemon may not have children by multiprocessing, as an app may with other servers.
    config.daemon = False
    config.max_requests = options.max_requests or None
    config.max_requests_jitter = options.max_requests // 10
    config.backlog = slipway_server.BACKLOG
    config.startup_timeout = options.ready_seconds
    config.graceful_timeout = options.drain_seconds
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    status: int = run(config)
    return status


if __name__ == "__main__":
    sys.exit(main())
