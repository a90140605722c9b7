"""Starts waitress, which is one process with threads and has no way to drain: that is added here."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import slipway_server
import waitress  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.server import BaseWSGIServer  # type: ignore[import-untyped]
from waitress.task import WSGITask  # type: ignore[import-untyped]

TICK_SECONDS = 0.05


class LastTask(WSGITask):  # type: ignore[misc]
    """A request after which its connection ends: nginx would keep it, and lose a POST when it is closed unannounced."""

    def start(self) -> None:
        """Begin."""
        super().start()
        self.request.headers["CONNECTION"] = "close"


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection."""

    task_class = LastTask


def stop_gracefully(servers: list[BaseWSGIServer], seconds: float) -> None:
    """Accept nothing more, and end once all is answered, or after so many seconds."""
    for server in servers:
        server.accepting = False
    deadline = time.monotonic() + seconds
    while any(server.active_channels for server in servers) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    # waitress ends its loop by this alone.
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Run the server."""
    options = slipway_server.begin("process", "waitress", "2.0")
    dispatchers: dict[int, Any] = {}
    server = waitress.create_server(
        slipway_server.wsgi(slipway_server.load()),
        map=dispatchers,
        sockets=slipway_server.listeners(),
        threads=options.size.threads,
        backlog=slipway_server.BACKLOG,
        connection_limit=slipway_server.BACKLOG,
        asyncore_use_poll=True,
        # How large a body may be is nginx's to say (max_body_size); waitress would say 1 GB.
        max_request_body_size=sys.maxsize,
        ident="",
        trusted_proxy="*",
        trusted_proxy_headers={"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"},
        clear_untrusted_proxy_headers=True,
    )
    servers = [one for one in dispatchers.values() if isinstance(one, BaseWSGIServer)]
    for one in servers:
        one.channel_class = Channel

    def drain(*_: Any) -> None:
        # Told again, it would break off its own end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=stop_gracefully, args=(servers, options.drain_seconds)).start()

    signal.signal(signal.SIGTERM, drain)
    server.print_listen("Serving on {}:{}")
    server.run()


if __name__ == "__main__":
    main()
