"""gunicorn's worker with threads, for WSGI apps."""

from __future__ import annotations

import slipway_server
from gunicorn.workers import gthread  # type: ignore[import-untyped]


class NamedWorker(gthread.ThreadWorker):  # type: ignore[misc]
    """`worker_class = "slipway_thread_worker.NamedWorker"`: each answer says which release and slot gave it."""

    def load_wsgi(self) -> None:
        """Load the app."""
        super().load_wsgi()
        self.wsgi = slipway_server.wsgi(self.wsgi)
        # Before 27, it closes connections that nginx keeps without having said so.
        if not hasattr(gthread, "STOP_KEEPALIVE_LINGER"):
            self.cfg.set("keepalive", 0)
