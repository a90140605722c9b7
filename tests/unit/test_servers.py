"""Each server beside the default one, on a socket that it inherits, as it does from systemd."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_role_templates import slot
from test_worker import FILES, ROOT, SETS, SOON, environment_of
from worker_client import WebSocket

SERVERS = yaml.safe_load((ROOT / "roles/app/vars/main.yml").read_text())["__app_servers"]
# The oldest that an app may lock.
OLDEST = ("oldest-servers", ROOT / "tests/unit/servers_oldest.txt")
APPS = {name: "wsgi" if "websocket_paths" in server["lacks"] else "asgi" for name, server in SERVERS.items()}


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("shop.example.com", timeout=SOON)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SOON)
        self.sock.connect(str(self.path))


class Server:
    """A server that runs as its unit would start it, on further sockets too, once a script has changed its files."""

    def __init__(
        self,
        name: str,
        directory: Path,
        locked: tuple[str, Path] | None = None,
        more: Sequence[socket.socket] = (),
        script: str = "",
        **options: Any,
    ) -> None:
        self.directory = directory
        python = environment_of(*(locked or (name, FILES / f"server/{name}.txt")))
        source, runtime, configuration = (directory / part for part in ("releases/r1/src", "run", "configuration"))
        for path in (source, runtime, configuration):
            path.mkdir(parents=True)
        (source / "server_app.py").write_text((ROOT / "tests/unit/server_app.py").read_text())
        options = {"entrypoint": f"server_app:{APPS[name]}", "workers": "2", "drain_seconds": 5, **options}
        files = slot(server=name, **options)
        for path, text in files.items():
            if path.endswith(".py"):
                (configuration / path).write_text(text)
        subprocess.run(["sh", "-ec", script], cwd=configuration, check=True)
        (start,) = [line for line in files["service"].splitlines() if line.startswith("ExecStart=")]
        arguments = start.partition(" ")[2].replace("/etc/slipway/shop/%i", str(configuration)).split()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "socket"))
        listener.listen(100)
        descriptors = [one.fileno() for one in (listener, *more)]
        moved = " ".join(f"{number}<&{descriptor}" for number, descriptor in enumerate(descriptors, 3))
        launch = f'export LISTEN_PID=$$ LISTEN_FDS={len(descriptors)}; exec "$@" {moved}'
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", launch, "bash", str(python), *arguments],
                pass_fds=descriptors,
                stderr=log,
                cwd=source,
                env={
                    **os.environ,
                    "SLIPWAY_APP": "shop",
                    "SLIPWAY_SLOT": "blue",
                    "RUNTIME_DIRECTORY": str(runtime),
                    "PROMETHEUS_MULTIPROC_DIR": str(runtime),
                },
            )
        listener.close()

    def ask(self, path: str = "/", method: str = "GET") -> http.client.HTTPResponse:
        """Ask as nginx does; the body is read already."""
        connection = Connection(self.directory / "socket")
        forwarded = {"For": "203.0.113.9", "Proto": "https", "Host": "shop.example.com"}
        headers = {f"X-Forwarded-{name}": value for name, value in forwarded.items()} | {"Host": forwarded["Host"]}
        connection.request(method, path, body=b"x" if method == "POST" else None, headers=headers)
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def children(self) -> set[str]:
        """The pids of its children."""
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    """Each server."""
    return str(request.param)


@pytest.fixture
def server(name: str, tmp_path: Path) -> Iterator[Server]:
    """It runs, and is stopped at the end."""
    started = Server(name, tmp_path)
    yield started
    started.process.terminate()
    assert started.process.wait(SOON) == 0


def test_an_answer_says_who_gave_it_and_the_app_knows_its_client(server: Server) -> None:
    for method in ("GET", "POST"):
        answer = server.ask(method=method)
        assert (answer.status, answer.body) == (200, b"203.0.113.9 https")  # type: ignore[attr-defined]
        assert answer.headers.get_all("X-Slipway-Release") == ["r1"]
        assert answer.headers.get_all("X-Slipway-Slot") == ["blue"]


def test_it_says_in_json_that_it_has_started(server: Server) -> None:
    server.ask()
    said = [json.loads(line) for line in (server.directory / "log").read_text().splitlines()]
    assert any(line["level"] == "info" for line in said)
    assert {(line["app"], line["release"], line["slot"]) for line in said} == {("shop", "r1", "blue")}


def test_the_log_level(name: str, tmp_path: Path) -> None:
    server = Server(name, tmp_path, log_level="warning")
    server.ask("/logs")
    server.process.terminate()
    assert server.process.wait(SOON) == 0
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in said if line["logger"] == "shop"] == ["scarce"]
    # A server may warn, too: waitress does of a request that comes before its threads are ready.
    assert {line["level"] for line in said} == {"warning"}


@pytest.mark.parametrize("name", [name for name, kind in APPS.items() if kind == "wsgi"], indirect=True)
def test_a_wsgi_app_knows_its_server(server: Server) -> None:
    assert server.ask("/server").body == b"shop.example.com 443 None"  # type: ignore[attr-defined]


def test_its_size_is_noted(server: Server, name: str) -> None:
    server.ask()
    size = json.loads((server.directory / "run/sizing").read_text())
    assert size["workers"] == (1 if name == "waitress" else 2)
    assert (size["threads"] > 1) == (APPS[name] == "wsgi")


def test_the_oldest_version_of_a_server(name: str, tmp_path: Path) -> None:
    server = Server(name, tmp_path, locked=OLDEST)
    answer = server.ask()
    assert (answer.status, answer.body) == (200, b"203.0.113.9 https")  # type: ignore[attr-defined]
    assert (answer.headers["X-Slipway-Release"], answer.headers["X-Slipway-Slot"]) == ("r1", "blue")
    assert (answer.headers.get("Connection", "").lower() != "close") == (name == "gunicorn")
    goes_when_all_is_answered(server)
    assert server.process.wait(SOON) == 0


def test_an_older_one_says_what_is_needed(tmp_path: Path) -> None:
    server = Server("uvicorn", tmp_path, locked=("oldest", SETS["oldest"]))
    assert server.process.wait(SOON) == 1
    assert "server: uvicorn needs uvicorn 0.30 or newer, and the app locks 0.22.0" in (tmp_path / "log").read_text()


def test_what_nginx_keeps_is_closed_with_a_word(server: Server, name: str) -> None:
    keeps = server.ask().headers.get("Connection", "").lower() != "close"
    assert keeps == name.startswith("gunicorn")


@pytest.mark.parametrize("name", ["gunicorn-wsgi", "waitress"], indirect=True)
def test_how_large_a_body_may_be_is_left_to_nginx(server: Server) -> None:
    connection = Connection(server.directory / "socket")
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "3000000000")
    connection.endheaders(b"x")
    connection.sock.settimeout(1)
    # waitress waits for all of it.
    with contextlib.suppress(TimeoutError):
        assert connection.getresponse().status == 200
    connection.close()


def test_what_the_app_starts_is_as_ever(server: Server) -> None:
    assert server.ask("/family").body == b"True False"  # type: ignore[attr-defined]


def test_it_answers_what_it_has_before_it_goes(server: Server) -> None:
    server.ask()
    goes_when_all_is_answered(server)


def goes_when_all_is_answered(server: Server) -> None:
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(server.ask("/slow").status))
    slow.start()
    time.sleep(0.5)
    server.process.terminate()
    slow.join()
    assert answers == [200]


@pytest.mark.parametrize("name", [name for name, kind in APPS.items() if kind == "asgi"], indirect=True)
def test_a_websocket_is_told_that_the_server_starts_anew(server: Server) -> None:
    async def talk() -> str:
        connection = await WebSocket.open(str(server.directory / "socket"))
        assert await connection.echo("a word") == "heard"
        server.process.terminate()
        return await asyncio.wait_for(connection.receive(), SOON)

    server.ask()
    assert asyncio.run(talk()) == "close 1012"
    assert server.process.wait(SOON) == 0


@pytest.mark.parametrize("name", ["gunicorn", "gunicorn-wsgi", "uvicorn"], indirect=True)
def test_a_worker_that_was_killed_is_replaced_and_its_live_state_forgotten(server: Server) -> None:
    gauge = "gauge_livesum_{}.db".format
    server.ask()
    before = server.children()
    for pid in before:
        (server.directory / "run" / gauge(pid)).touch()
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while list((server.directory / "run").glob(gauge("*"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.ask().status == 200


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if server.get("reload")], indirect=True)
def test_a_reload_replaces_the_workers(server: Server) -> None:
    server.ask()
    before = server.children()
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + SOON
    while len(server.children() & before) > 1:  # what shares the sockets of uvicorn's workers stays
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.ask().status == 200


def test_a_function_that_makes_the_app(tmp_path: Path) -> None:
    server = Server("uvicorn", tmp_path, entrypoint="server_app:make()")
    assert server.ask().status == 200
    server.process.terminate()
    assert server.process.wait(SOON) == 0
