"""How an app is asked whether it is ready: over its own socket, as the front's user, and through the front."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pwd
import socket
import ssl
from pathlib import Path

# Where nginx answers this host, and no other, with what the live slot says of its readiness.
VERIFY_PATH = "/.slipway/ready"
RELEASE_HEADER = "X-Slipway-Release"
# Seconds that one answer may take.
PROBE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """How an app is asked whether it is ready.

    Attributes:
        path: the path that it answers with a status from 200 to 399.
        host: the Host it is asked for.
        seconds: how long it has to become ready.
        patience: how many seconds one answer may take.
    """

    path: str
    host: str
    seconds: float
    patience: float = PROBE_SECONDS


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _FrontConnection(http.client.HTTPConnection):
    """HTTPS to this host, whatever address the name has."""

    def connect(self) -> None:
        # Not the default context: it reads all of the host's CAs each time, and this one asks none of them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = context.wrap_socket(plain, server_hostname=self.host)


def ask_socket(path: Path, probe: Probe, release: str) -> str:
    """Ask an app over its own socket whether it is ready, and whether it is the release that is meant.

    Returns:
        "" where it is, else what is wrong.
    """
    return _ask(_SocketConnection(path, probe.patience), probe.path, probe.host, release)


def ask_as(user: str, path: Path, probe: Probe, release: str) -> str:
    """The same, as another user of this host: the front's, whose rights are the ones that count."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return f"this host has no user {user}, as whom the front would connect"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            if account.pw_uid != os.geteuid():
                os.initgroups(user, account.pw_gid)
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
            os.write(writer, json.dumps(ask_socket(path, probe, release)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    problem = json.loads(answer) if answer else "the question could not be asked"
    return f"as {user}: {problem}" if problem else ""


def ask_front(port: int, probe: Probe, release: str) -> str:
    """The same over HTTPS through the front of this host.

    The certificate is not checked here: it may be a self-signed one, and the connection does not leave the host.
    """
    problem = _ask(_FrontConnection(probe.host, port, timeout=probe.patience), VERIFY_PATH, probe.host, release)
    return f"over HTTPS through the front: {problem}" if problem else ""


def _ask(connection: http.client.HTTPConnection, path: str, host: str, release: str) -> str:
    headers = {"Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-Host": host, "Connection": "close"}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error or type(error).__name__}"
    finally:
        connection.close()
    if not 200 <= answer.status < 400:
        return f"status {answer.status}: {body[:500]}"
    found = answer.headers.get(RELEASE_HEADER)
    return "" if found == release else f"release {found} answered in place of {release}"
