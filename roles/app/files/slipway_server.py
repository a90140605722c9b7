"""What servers beside the default one have in common: how they are told what to do, and what each answer says.

What nginx says of a client is believed, for nobody else may open the socket.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import operator
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

import slipway_log
import slipway_sizing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]
StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

# The first descriptor that systemd hands over, see sd_listen_fds(3).
FIRST_DESCRIPTOR = 3
# As many connections as the unit's socket lets wait.
BACKLOG = 4096


def begin(kind: str, package: str, oldest: str) -> argparse.Namespace:
    """Read the options, decide on the size, and tell the workers by their environment what they serve.

    Args:
        kind: the kind of the server, as :func:`slipway_sizing.size` takes it.
        package: the server's package, which the app may have locked.
        oldest: the first version of it, as "1.2", that does all that is asked of it here.

    Returns:
        ``ready_seconds``, ``drain_seconds``, ``max_requests``, and the ``size``.

    Raises:
        SystemExit: it is older.
    """
    found = importlib.metadata.version(package)
    if [*map(int, found.split(".")[:2])] < [*map(int, oldest.split("."))]:
        sys.exit(f"server: {package} needs {package} {oldest} or newer, and the app locks {found}")
    parser = argparse.ArgumentParser()
    parser.add_argument("--entrypoint", required=True)
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--max-requests", type=int, default=0)
    parser.add_argument("--ready-seconds", type=int)
    parser.add_argument("--drain-seconds", type=int, required=True)
    parser.add_argument("--log-level", required=True)
    options = parser.parse_args()
    options.size = slipway_sizing.size(kind, options.workers, options.threads)
    slipway_sizing.note(options.size)
    os.environ["SLIPWAY_RELEASE"] = release()
    os.environ["SLIPWAY_ENTRYPOINT"] = options.entrypoint
    os.environ["SLIPWAY_LOG_LEVEL"] = options.log_level
    slipway_log.configure()
    return options


def release() -> str:
    """The id of the release in whose source directory the unit has started, whatever links have led there."""
    return os.path.basename(os.path.dirname(os.getcwd()))


def descriptors() -> list[int]:
    """Of the sockets that systemd has made: one, unless a drop-in of somebody's gives the unit more."""
    return [FIRST_DESCRIPTOR + number for number in range(int(os.environ["LISTEN_FDS"]))]


def listeners() -> list[socket.socket]:
    """These sockets."""
    return [socket.socket(fileno=descriptor) for descriptor in descriptors()]


def load() -> Any:
    """Import the app from the directory that the unit starts in, or have what is named make it."""
    sys.path.insert(0, os.getcwd())
    module, _, attribute = os.environ["SLIPWAY_ENTRYPOINT"].partition(":")
    found = operator.attrgetter(attribute.removesuffix("()"))(importlib.import_module(module))
    return found() if attribute.endswith("()") else found


def forget_the_dead() -> None:
    """Remove what workers that have ended told of their live state, as prometheus_client asks for."""
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        for path in Path(directory).glob("gauge_live*_*.db"):
            if not Path("/proc", path.stem.rpartition("_")[2]).exists():
                path.unlink(missing_ok=True)


def served_by() -> list[tuple[str, str]]:
    """The headers of each answer that say who gave it."""
    return [("X-Slipway-Release", os.environ["SLIPWAY_RELEASE"]), ("X-Slipway-Slot", os.environ["SLIPWAY_SLOT"])]


def asgi() -> Asgi:
    """The app with these headers, and one by which nginx keeps no connection, which would be closed unannounced.

    It is for a process of its own, which logs as the first does.
    """
    slipway_log.configure()
    # It takes the place of one that has ended, or is among the first.
    forget_the_dead()
    app: Asgi = load()
    added = [(name.lower().encode(), value.encode()) for name, value in [*served_by(), ("Connection", "close")]]

    async def named(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            slipway_log.enter_scope(scope)

        async def sign(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await app(scope, receive, sign if scope["type"] == "http" else send)

    return named


def wsgi(app: Wsgi) -> Wsgi:
    """A WSGI app with these headers, told who its client is."""
    added = served_by()

    def named(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        def sign(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, *added], *error)

        slipway_log.enter_environ(environ)
        environ["REMOTE_ADDR"] = environ.get("HTTP_X_FORWARDED_FOR") or environ.get("REMOTE_ADDR", "")
        environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO") or environ["wsgi.url_scheme"]
        # Of a Unix socket, waitress has "None".
        environ.pop("REMOTE_PORT", None)
        return app(environ, sign)

    return named
