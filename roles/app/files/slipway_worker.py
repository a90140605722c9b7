"""A gunicorn worker for ASGI apps that leaves without losing a request.

nginx keeps connections to the worker open and never repeats a POST. So the worker does not close
a connection that it has not announced to close: from the moment it is to leave, every answer
carries `Connection: close`, and what is idle in nginx's pool is left to nginx, whose upstream
`keepalive_timeout` must be short (below POOL_SECONDS) for the worker to be gone soon.

Told to go (SIGTERM: reload, stop), it stops accepting at once; what waits in the listen backlog
is served by the other workers, or by the next ones. Requests in flight, background tasks and
WebSockets have SLIPWAY_DRAIN_SECONDS to end. Recycled (max_requests), it first lets go of its
connections and WebSockets while it still accepts, because gunicorn starts a successor only when
this worker has ended; one worker at a time, and none while others drain.

Needs gunicorn >= 20.1 and uvicorn >= 0.22. Environment:

SLIPWAY_DRAIN_SECONDS   how long open work may go on, in seconds (default 30); then WebSockets are
                        closed with 1012, and requests are cancelled CANCEL_SECONDS later
SLIPWAY_RELEASE         sent as X-Slipway-Release with every answer
SLIPWAY_SLOT            sent as X-Slipway-Slot with every answer
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

import slipway_log
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn.server import Server  # type: ignore[import-not-found]

try:
    from uvicorn_worker import UvicornWorker  # type: ignore[import-not-found]
except ImportError:
    from uvicorn.workers import UvicornWorker  # type: ignore[import-not-found]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

DRAIN_SECONDS = float(os.environ.get("SLIPWAY_DRAIN_SECONDS") or 30)
HEADERS = {
    "X-Slipway-Release": os.environ.get("SLIPWAY_RELEASE", ""),
    "X-Slipway-Slot": os.environ.get("SLIPWAY_SLOT", ""),
}
KEEP_ALIVE_SECONDS = 75  # longer than nginx keeps a connection, so that it is nginx who closes
IDLE_SECONDS = 5  # for a client that is not nginx and leaves its connection open
CANCEL_SECONDS = 5  # gunicorn's graceful_timeout must be longer than drain + cancel + pool
POOL_SECONDS = 2  # longer than nginx keeps an idle connection to a worker
TICK_SECONDS = 0.05
JOINED_BYTES = 65536  # asyncio's own high-water mark; what is larger takes more than one read anyway

# The master imports this module, so all its workers share the file; each takes locks of its own.
_LEAVING = os.memfd_create("slipway-leaving")
_LOG = logging.getLogger("uvicorn.error")


def _lock(kind: int) -> bool:
    try:
        fcntl.lockf(_LEAVING, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class _Joined:
    """The transport of one answer, which sends its head together with the first of its body.

    nginx repeats a GET whose worker was killed, but not once it has had the head of an answer. A
    stream whose body does not come at once still gets its head, TICK_SECONDS later.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held: list[bytes] | None = []
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold what is small, until `release`; then, and what is large, send it."""
        if self._held is not None and len(data) <= JOINED_BYTES:
            self._held.append(data)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self.release)
        else:
            self.release()
            self._transport.write(data)

    def release(self) -> None:
        """Send what is held, and hold no more."""
        held, self._held = self._held, None
        if self._timer is not None:
            self._timer.cancel()
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def close(self) -> None:
        """Send what is held, then close."""
        self.release()
        self._transport.close()


class DrainingServer(Server):  # type: ignore[misc]
    """Uvicorn's server, with a drain before its own shutdown."""

    servers: list[Any]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        config.load()
        self._app: App = config.loaded_app
        config.loaded_app = self._call
        self._websockets: set[asyncio.Task[Any] | None] = set()
        self._closing = False
        self._quick = False

    def handle_exit(self, sig: int, _frame: Any) -> None:
        """SIGTERM drains; SIGQUIT and SIGINT are gunicorn's words for a quick end.

        Uvicorn's own would raise the signal again at the end, and so skip atexit handlers.
        """
        self.should_exit = True
        self._quick = self._quick or sig != signal.SIGTERM

    async def shutdown(self, sockets: Any = None) -> None:
        """Drain, then let uvicorn close what is left, cancel it, and end the lifespan."""
        if not self.should_exit:
            await self._recycle()
        recycled = not self.should_exit
        _lock(fcntl.LOCK_SH)
        self._closing = True
        state = self.server_state
        _LOG.info("Draining %d connections and %d tasks", len(state.connections), len(state.tasks))
        await self._stop_accepting(sockets)
        self._expire_idle_connections()
        await self._wait(lambda: self._busy(websockets=not recycled) and not self._quick, DRAIN_SECONDS)
        for connection in list(state.connections):
            if not isinstance(connection, self.config.http_protocol_class):
                connection.shutdown()
        await self._wait(lambda: bool(state.tasks), CANCEL_SECONDS)
        # An answer that began before the drain did not announce it: its connection may be in nginx's pool.
        await self._wait(lambda: bool(state.connections), POOL_SECONDS)
        await super().shutdown()

    async def _call(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        slipway_log.enter_scope(scope)
        if scope["type"] == "websocket":
            task = asyncio.current_task()
            self._websockets.add(task)
            try:
                await self._app(scope, receive, send)
            finally:
                self._websockets.discard(task)
            return

        # `send` is a method of uvicorn's cycle of one request and its answer.
        cycle: Any = send.__self__  # type: ignore[attr-defined]
        cycle.transport = joined = _Joined(cycle.transport)
        early: list[Message] = []
        read = waiting = False

        async def listen() -> Message:
            nonlocal read, waiting
            if early:
                return early.pop()
            waiting = True
            message = await receive()
            waiting, read = False, not message.get("more_body")
            return message

        async def announce(message: Message) -> None:
            if self._closing and message["type"] == "http.response.start":
                if not (read or waiting):
                    with contextlib.suppress(asyncio.TimeoutError):
                        early.append(await asyncio.wait_for(listen(), TICK_SECONDS))
                # A connection that is closed while nginx still sends a body is a 502: nginx will close it.
                if read:
                    kept = [h for h in message.get("headers", ()) if h[0].lower() != b"connection"]
                    message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await send(message)
            if message["type"] == "http.response.body":
                joined.release()

        await self._app(scope, listen, announce)

    async def _recycle(self) -> None:
        while not self.should_exit and not _lock(fcntl.LOCK_EX):
            await self._tick()
        self._closing = True
        open_ = set(self.server_state.connections)
        await self._wait(
            lambda: bool(self._websockets or open_ & self.server_state.connections) and not self.should_exit,
            DRAIN_SECONDS,
        )

    async def _stop_accepting(self, sockets: Any) -> None:
        # asyncio drops a connection that it accepted just before its server is closed.
        for sock in sockets or ():
            asyncio.get_running_loop().remove_reader(sock)
        await self._tick()
        for server in self.servers:
            server.close()
        # Before 0.25, uvicorn waits for these to end before it closes a single connection.
        self.servers = []

    def _expire_idle_connections(self) -> None:
        # Uvicorn's own timer is stopped by the next byte, and set again after its answer.
        for connection in self.server_state.connections:
            if isinstance(connection, self.config.http_protocol_class):
                connection.timeout_keep_alive = IDLE_SECONDS
                if connection.cycle is None or connection.cycle.response_complete:
                    connection._unset_keepalive_if_required()
                    connection.timeout_keep_alive_task = connection.loop.call_later(
                        IDLE_SECONDS, connection.timeout_keep_alive_handler
                    )

    def _busy(self, websockets: bool) -> bool:
        state, http = self.server_state, self.config.http_protocol_class
        if websockets:
            return bool(state.connections or state.tasks)
        return any(isinstance(c, http) for c in state.connections) or bool(state.tasks - self._websockets)

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while condition() and asyncio.get_running_loop().time() < deadline:
            await self._tick()

    async def _tick(self) -> None:
        await self.config.callback_notify()
        await asyncio.sleep(TICK_SECONDS)


class DrainingWorker(UvicornWorker):  # type: ignore[misc]
    """`worker_class = "slipway_worker.DrainingWorker"`; trusts the proxy headers of its socket."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "auto",
        "http": "auto",
        "access_log": False,
        "server_header": False,
        "forwarded_allow_ips": "*",
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": 1,
        "headers": [(name, value) for name, value in HEADERS.items() if value],
    }

    def init_process(self) -> None:
        """Start as the user that systemd has set: gunicorn before 21 sets it once more, which the sandbox kills."""
        self.cfg.set("user", 0)
        super().init_process()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config)
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
