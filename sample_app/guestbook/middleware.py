"""What happens to every request: an id, a measurement, and one log record if it fails."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guestbook.log import request_id
from guestbook.metrics import LATENCY, REQUESTS

HEADER = "x-request-id"
ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

log = logging.getLogger(__name__)


class RequestContext:
    """ASGI middleware: request id, metrics, and an answer to what no handler caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(HEADER, "")
        identifier = offered if ACCEPTABLE_ID.fullmatch(offered) else uuid.uuid4().hex
        request_id.set(identifier)
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return

        start = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identifier
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:  # Too late for another answer: let the server cut the connection.
                raise
            failure = JSONResponse({"detail": "Internal Server Error"}, 500)
            await failure(scope, receive, send_with_id)
        finally:
            # Only what the app itself defines: a label from the client would have no bounds.
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "unmatched")
            REQUESTS.labels(method, route, status or 499).inc()
            LATENCY.labels(method, route).observe(time.perf_counter() - start)
