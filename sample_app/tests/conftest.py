"""Real parts only: migrations, servers and sockets as in production, each in its own directory."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
SESSION_KEY = "a-key-that-is-only-good-for-tests-0123456789"
Environment = dict[str, str]

# Where the suite is to run against other databases than SQLite: they are emptied.
OTHERS = {
    name: value
    for name in ("DATABASE_URL", "REDIS_URL")
    if (value := os.environ.get(f"TEST_{name}"))
}

# The app reads its settings when it is imported, so they have to be there before the tests are.
os.environ.update(OTHERS, SESSION_KEY=SESSION_KEY, STATE_DIRECTORY=tempfile.mkdtemp())
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def run(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command from the source directory, as Slipway does."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def migrate(environment: Environment) -> None:
    """Make the database anew."""
    for arguments in (["downgrade", "base"], ["upgrade", "head"]):
        done = run(environment, "-m", "alembic", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return what systemd and Slipway give the app: directories of its own, and a secret."""
    for name in ("state", "credentials", "metrics"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials" / "session_key").write_text(SESSION_KEY)
    return OTHERS | {
        "PATH": os.environ["PATH"],
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "SLIPWAY_RELEASE": "r1",
        "SLIPWAY_SLOT": "blue",
        "PRESENCE_SECONDS": "3",
    }


@dataclass
class Server:
    """A running server, as its clients and its operator see it."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request on a connection of its own."""
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=10, **options)

    def get(self, path: str) -> httpx.Response:
        """Send a GET."""
        return self.request("GET", path)

    def sign(self, message: str, name: str = "Ada") -> httpx.Response:
        """Write into the guest book."""
        return self.request("POST", "/api/entries", json={"name": name, "message": message})

    @contextlib.contextmanager
    def sockets_to_each_worker(self, count: int) -> Iterator[dict[int, ClientConnection]]:
        """Open sockets until each worker serves one, and keep that one."""
        with contextlib.ExitStack() as stack:
            found: dict[int, ClientConnection] = {}
            deadline = time.monotonic() + 30
            while len(found) < count:
                assert time.monotonic() < deadline, f"only {found.keys()} answer"
                with contextlib.ExitStack() as attempt:
                    one = attempt.enter_context(connect(f"ws://127.0.0.1:{self.port}/ws"))
                    pid = receive(one, lambda message: "about" in message)["about"]["pid"]
                    if pid not in found:
                        found[pid] = one
                        stack.push(attempt.pop_all())
            yield found

    def stop(self) -> None:
        """End the server as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def receive(
    connection: ClientConnection, wanted: Callable[[dict[str, Any]], bool], seconds: float = 10
) -> dict[str, Any]:
    """Return the first message that is wanted."""
    deadline = time.monotonic() + seconds
    while True:
        message = json.loads(connection.recv(timeout=max(0.0, deadline - time.monotonic())))
        if wanted(message):
            return dict(message)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server; it is stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start_server(environment: Environment, workers: int = 1) -> Server:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            log = tmp_path / "log"
            server = [sys.executable, "-m", "uvicorn", "guestbook.main:app", f"--port={port}"]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*server, f"--workers={workers}"],
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            server_ = Server(port, process, log)
            stack.callback(server_.stop)
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if server_.get("/health").status_code == 200:
                        return server_
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

        yield start_server


@pytest.fixture(scope="session")
def migrated() -> None:
    """Migrate the database of the app that the tests import."""
    migrate(dict(os.environ))


@pytest.fixture
def client(migrated: None) -> Iterator[TestClient]:
    """Return a client of the app in this very process."""
    from guestbook.main import app

    with TestClient(app) as test_client:
        yield test_client
