"""The draining worker under a real gunicorn, with the oldest and the newest servers that it serves: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from worker_client import Client, Load, WebSocket, read_head

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/app/files"
SETS = {"oldest": ROOT / "tests/unit/worker_oldest.txt", "newest": FILES / "server/gunicorn.txt"}
DRAIN_SECONDS = 3.0
# Generous, for a machine that does other things as well: these are limits, no measurements.
SOON = 30.0


@pytest.fixture(scope="module", params=SETS)
def python(request: pytest.FixtureRequest) -> Path:
    """A Python with a server set."""
    return environment_of(request.param, SETS[request.param])


def environment_of(name: str, requirements: Path) -> Path:
    """A Python with these requirements, made once for each state of them, by one of those who want it."""
    venv = ROOT / ".cache" / "servers" / name
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _environment(venv, requirements)


def _environment(venv: Path, requirements: Path) -> Path:
    stamp, wanted = venv / "stamp", requirements.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = str(ROOT / ".cache/uv/bin/uv")
        environment = {**os.environ, "UV_SYSTEM_CERTS": "1"}
        for command in (
            [uv, "venv", "--quiet", "--clear", "--no-project", f"--python={sys.executable}", str(venv)],
            [uv, "pip", "sync", "--quiet", "--require-hashes", f"--python={venv}/bin/python", str(requirements)],
        ):
            subprocess.run(command, check=True, env=environment)
        stamp.write_text(wanted)
    return venv / "bin/python"


class Server:
    """A gunicorn with draining workers on a socket that it inherits, as it does from systemd."""

    def __init__(self, python: Path, directory: Path, *options: str) -> None:
        self.path = str(directory / "socket")
        self.journal, self.log = directory / "journal", directory / "log"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(2048)
        launch = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&{self.listener.fileno()}'
        gunicorn = [str(python), "-m", "gunicorn", "-k", "slipway_worker.DrainingWorker", "--workers", "2"]
        limits = ["--graceful-timeout", "13", "--timeout", "26", "--keep-alive", "75"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", launch, "bash", *gunicorn, *limits, *options, "worker_app:app"],
                pass_fds=[self.listener.fileno()],
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{FILES}:{Path(__file__).parent}",
                    "SLIPWAY_DRAIN_SECONDS": str(DRAIN_SECONDS),
                    "SLIPWAY_APP": "shop",
                    "SLIPWAY_RELEASE": "r1",
                    "SLIPWAY_SLOT": "blue",
                    "WORKER_JOURNAL": str(self.journal),
                },
            )
        self.wait(lambda: self.noted("up") >= 2, "two workers are up")

    def noted(self, line: str) -> int:
        """How often the app noted this."""
        return self.journal.read_text().count(f" {line}") if self.journal.exists() else 0

    def workers(self) -> set[int]:
        """The pids of the workers, those that leave among them."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + SOON
        while not condition():
            ended = self.process.poll()
            assert ended is None, f"gunicorn ended with {ended}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not in {SOON:g} s: {what}\n{self.log.read_text()}"
            time.sleep(0.02)

    async def reload(self) -> set[int]:
        """Send SIGHUP and return the pids that were there before it, once their successors are up."""
        before, up = self.workers(), self.noted("up")
        self.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(self.wait, lambda: self.noted("up") >= up + 2, "the successors are up")
        return before

    async def tell(self) -> None:
        """Send SIGHUP and wait until both workers know that they are to go."""
        told = self.log.read_text().count("Draining")
        self.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(self.wait, lambda: self.log.read_text().count("Draining") >= told + 2, "they were told")

    def stop(self) -> None:
        """End it, and insist on an orderly end."""
        self.process.terminate()
        assert self.process.wait(SOON) == 0
        self.listener.close()


@pytest.fixture
def serve(python: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server; it is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> Server:
            server = Server(python, tmp_path, *options)
            stack.callback(server.stop)
            return server

        yield start


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work, 3 * SOON)

    asyncio.run(main())


def test_reloads_lose_nothing(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        async with Load(server.path) as load:
            for _ in range(5):
                await asyncio.sleep(0.5)
                before = await server.reload()
                await asyncio.to_thread(
                    server.wait, lambda gone=before: not gone & server.workers(), "the old are gone"
                )
        print(load)
        assert not load.failed, load
        assert load.done > 1000
        assert len(load.pids) >= 4
        assert load.closes > 0

    run(work())


def test_recycling_loses_nothing(serve: Callable[..., Server]) -> None:
    server = serve("--max-requests", "200", "--max-requests-jitter", "50")

    async def work() -> None:
        async with Load(server.path) as load:
            await asyncio.to_thread(server.wait, lambda: server.noted("up") >= 6, "workers were recycled")
        print(load)
        assert not load.failed, load
        assert len(load.pids) >= 4

    run(work())


@pytest.mark.parametrize(("options", "times"), [((), 2), (("--preload",), 1)], ids=["each", "preload"])
def test_each_worker_imports_the_app_unless_they_are_forked_from_it(
    serve: Callable[..., Server], options: tuple[str, ...], times: int
) -> None:
    assert serve(*options).noted("imported") == times


def test_websockets_stay_for_the_drain_and_then_close_with_1012(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        connection = await WebSocket.open(server.path)
        assert (await connection.echo("before")).endswith("before")
        started = time.monotonic()
        await server.reload()
        assert (await connection.echo("after")).endswith("after")
        assert await connection.receive() == "close 1012"
        assert time.monotonic() - started >= DRAIN_SECONDS

    run(work())


def test_a_connection_that_nginx_may_still_use_outlasts_the_websockets(serve: Callable[..., Server]) -> None:
    server = serve()
    question = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello"

    async def work() -> None:
        websockets = [await WebSocket.open(server.path) for _ in range(4)]
        kept = [await asyncio.open_unix_connection(server.path) for _ in range(4)]
        await server.tell()
        assert {await websocket.receive() for websocket in websockets} == {"close 1012"}
        for reader, writer in kept:
            writer.write(question)
            status, headers = await read_head(reader)
            assert (status, headers["connection"]) == (200, "close")
            writer.close()

    run(work())


def test_websockets_outlast_a_reload_that_meets_a_recycling_worker(serve: Callable[..., Server]) -> None:
    server = serve("--max-requests", "5")

    async def work() -> None:
        connections = [await WebSocket.open(server.path) for _ in range(4)]
        for _ in range(20):
            await Client(server.path).request(fresh=True)
        await asyncio.sleep(0.5)
        started = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        closing = [asyncio.create_task(connection.receive()) for connection in connections]
        await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
        assert time.monotonic() - started >= DRAIN_SECONDS
        assert {await close for close in closing} == {"close 1012"}

    run(work())


def test_requests_and_background_work_in_flight_are_finished(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        client = Client(server.path)
        slow = [asyncio.create_task(client.request(path=f"/{kind}?2", fresh=True)) for kind in ("sleep", "stream")]
        behind = asyncio.create_task(client.request(path="/background?1.5", fresh=True))
        await asyncio.sleep(0.5)
        await server.reload()
        assert [(await task).status for task in [*slow, behind]] == [200, 200, 200]
        await asyncio.to_thread(server.wait, lambda: server.noted("background") == 1, "background work was done")

    run(work())


def test_in_a_hurry_websockets_close_at_once_and_answers_are_finished(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        websockets = [await WebSocket.open(server.path) for _ in range(4)]
        slow = asyncio.create_task(Client(server.path).request(path="/stream?2", fresh=True))
        await asyncio.sleep(0.5)
        started = time.monotonic()
        for pid in server.workers():
            os.kill(pid, signal.SIGQUIT)
        assert {await websocket.receive() for websocket in websockets} == {"close 1012"}
        assert time.monotonic() - started < DRAIN_SECONDS
        assert (await slow).status == 200

    run(work())


def test_what_is_stuck_is_cancelled_and_the_lifespan_still_ends(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        _, writer = await asyncio.open_unix_connection(server.path)
        writer.write(b"GET /stuck HTTP/1.1\r\nHost: app\r\n\r\n")
        await asyncio.sleep(0.5)
        before = await server.reload()
        await asyncio.to_thread(server.wait, lambda: not before & server.workers(), "the stuck worker is gone")
        assert server.noted("down") == 2
        writer.close()

    run(work())


def test_a_leaving_worker_says_so_and_an_idle_one_is_gone_at_once(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        before = await server.reload()
        started = time.monotonic()
        await asyncio.to_thread(server.wait, lambda: not before & server.workers(), "idle workers are gone")
        assert time.monotonic() - started < DRAIN_SECONDS
        reader, writer = await asyncio.open_unix_connection(server.path)
        question = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
        writer.write(question)
        status, headers = await read_head(reader)
        await reader.readexactly(int(headers["content-length"]))
        assert (status, headers.get("connection")) == (200, None)
        assert (headers["x-slipway-release"], headers["x-slipway-slot"]) == ("r1", "blue")
        await server.tell()
        writer.write(question)
        status, headers = await read_head(reader)
        assert (status, headers["connection"]) == (200, "close")
        writer.close()

    run(work())


def test_a_body_that_the_app_does_not_read_costs_no_answer(serve: Callable[..., Server]) -> None:
    server = serve()
    question = "POST /unread HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n"

    async def work() -> None:
        kept = [await asyncio.open_unix_connection(server.path) for _ in range(4)]
        await asyncio.sleep(0.5)
        await server.tell()
        for number, (reader, writer) in enumerate(kept):
            # nginx sends no more of a body once it has an answer, and fails if it cannot even send that.
            small = number % 2 == 0
            writer.write(question.format(5 if small else 10_000_000).encode() + b"hello" * (1 if small else 20_000))
            status, headers = await read_head(reader)
            await reader.readexactly(int(headers["content-length"]))
            assert (status, headers.get("connection")) == (200, "close" if small else None)
            writer.close()

    run(work())


def test_the_head_of_an_answer_comes_with_its_body_unless_that_is_late(serve: Callable[..., Server]) -> None:
    server = serve()
    question = "GET /late?{} HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody"

    async def work() -> None:
        reader, writer = await asyncio.open_unix_connection(server.path)
        for _ in range(50):
            writer.write(question.format(0).encode())
            answer = await reader.read(10_000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        writer.write(question.format(1).encode())
        assert (await reader.read(10_000)).endswith(b"\r\n\r\n")
        assert await reader.readexactly(14) == b"4\r\nbody\r\n0\r\n\r\n"
        writer.close()

    run(work())


def test_the_clients_address_comes_from_the_front(serve: Callable[..., Server]) -> None:
    server = serve()

    async def work() -> None:
        answer = await Client(server.path).request(path="/client")
        assert answer.body.decode().startswith("https ('192.0.2.7'")

    run(work())
