"""Starts uvicorn's own supervisor, which before 0.30 does not replace a worker that has ended."""

from __future__ import annotations

import inspect
from typing import Any

import slipway_server
from uvicorn.config import Config  # type: ignore[import-not-found]
from uvicorn.server import Server  # type: ignore[import-not-found]
from uvicorn.supervisors import Multiprocess  # type: ignore[import-not-found]


def main() -> None:
    """Run the server."""
    options = slipway_server.begin("loops", "uvicorn", "0.30")
    config = Config(
        "slipway_server:asgi",
        factory=True,
        workers=options.size.workers,
        backlog=slipway_server.BACKLOG,
        access_log=False,
        log_config=None,
        server_header=False,
        forwarded_allow_ips="*",
        timeout_graceful_shutdown=options.drain_seconds,
        limit_max_requests=options.max_requests or None,
        # From 0.41 on.
        **_known(Config, limit_max_requests_jitter=options.max_requests // 10),
    )
    # Until 0.50, the supervisor is told what a worker runs.
    told = _known(Multiprocess, target=Server(config).run)
    Multiprocess(config, sockets=slipway_server.listeners(), **told).run()


def _known(kind: type, **options: Any) -> dict[str, Any]:
    """Those of the options that this version's class takes."""
    return {name: value for name, value in options.items() if name in inspect.signature(kind).parameters}


if __name__ == "__main__":
    main()
