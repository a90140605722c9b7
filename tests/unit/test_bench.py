"""What `make bench` makes of what it sees: figures, tables, and the ways from nginx to a server that it compares."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml
from measure import figures, growth, hosts, page, path, provisioning, reload, tutorial
from measure.figures import Answers, Spread, Table
from test_nginx_templates import SITE, Front, render
from test_servers import Connection, Server
from test_worker import SOON

ROOT = Path(__file__).resolve().parents[2]
WRK = """\
Running 4s test @ https://gunicorn.bench.test/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.21ms    2.10ms  40.63ms   78.02%
    Req/Sec     3.90k   311.01     4.51k    72.50%
  15543 requests in 4.00s, 3.31MB read
"""
# As the callback prints it.
RECAP = """
TASK [Short] *******************************************************************
Sunday 22 November 2026  10:27:57 +0000 (0:00:00.740)       0:00:00.740 *******

PLAY RECAP *********************************************************************
host-1                     : ok=12   changed=2    unreachable=0    failed=0    skipped=3    rescued=0    ignored=0
host-2                     : ok=12   changed=10   unreachable=0    failed=0    skipped=3    rescued=0    ignored=0


TASKS RECAP ********************************************************************
Sunday 22 November 2026  10:27:57 +0000 (0:00:00.740)       0:00:00.740 *******
===============================================================================
slipway.asgi.app : uv | Install uv - from its wheel, with a name that is wider than the terminal is --- 12.67s
Gathering Facts --------------------------------------------------------- 1.20s
Short ------------------------------------------------------------------- 0.03s
Gathering Facts --------------------------------------------------------- 0.30s
"""
CPU = """\
/sys/fs/cgroup/cpu.stat:usage_usec 1000
/sys/fs/cgroup/system.slice/cpu.stat:usage_usec 900
/sys/fs/cgroup/system.slice/nginx.service/cpu.stat:usage_usec 300
/sys/fs/cgroup/system.slice/systemd-journald.service/cpu.stat:usage_usec 40
/sys/fs/cgroup/system.slice/system-slipway\\x2dshop.slice/slipway-shop@blue.service/cpu.stat:usage_usec 500
"""
UNITS = {"app": "slipway-shop@*.service", "nginx": "nginx.service", "journal": "systemd-journald*.service"}


# --- what programs print


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("", Answers(15543, 0)),
        ("  Non-2xx or 3xx responses: 43\n", Answers(15543, 43)),
        ("  Socket errors: connect 1, read 20, write 300, timeout 4000\n", Answers(19864, 4321)),
    ],
)
def test_what_wrk_says_is_counted(added: str, expected: Answers) -> None:
    assert figures.answers(f"{WRK}{added}Requests/sec:   3885.02\nTransfer/sec:    847.70KB\n") == expected


def test_wrk_that_met_nobody_is_no_figure() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        figures.answers("unable to connect to gunicorn.bench.test:https Connection refused\n")


def test_cpu_time_is_told_apart_by_units() -> None:
    before = figures.cpu(CPU)
    assert before[""] == 1000 and before["system.slice/nginx.service"] == 300
    after = figures.cpu(re.sub(r"\d+$", lambda last: str(int(last[0]) * 2), CPU, flags=re.MULTILINE))
    # The slice has what its service has, and is not counted as well.
    assert figures.used(before, after, UNITS) == {"app": 500, "nginx": 300, "journal": 40, "host": 1000}


def test_a_unit_that_came_meanwhile_counts_from_nothing() -> None:
    before = figures.cpu("/sys/fs/cgroup/cpu.stat:usage_usec 1000\n")
    assert figures.used(before, figures.cpu(CPU), UNITS)["nginx"] == 300


def test_tasks_are_longest_first_and_like_names_together() -> None:
    found = figures.tasks(RECAP)
    assert list(found.values()) == [12.67, 1.5, 0.03]
    assert next(iter(found)).endswith("wider than the terminal is")


def test_changes_are_those_of_all_hosts() -> None:
    assert figures.changes(RECAP) == 12
    hosts.unchanged(re.sub(r"changed=\d+", "changed=0", RECAP))
    with pytest.raises(hosts.Failed, match="should have changed nothing"):
        hosts.unchanged(RECAP)


def test_memory_is_the_sum_of_shares() -> None:
    rollup = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:   9000 kB\nPss:   {} kB\nPss_Anon:   1 kB\n"
    assert figures.memory(rollup.format(4000) + rollup.format(2500)) == (2, 6500)


@pytest.mark.parametrize("package", provisioning.PACKAGES)
def test_what_is_added_as_a_dependency_is_pinned_and_new(package: str) -> None:
    lines = figures.pinned((ROOT / "requirements.txt").read_text(), package)
    assert lines.startswith(f"{package}==") and lines.count("==") == 1
    assert lines.rstrip().splitlines()[-1].strip().startswith("--hash=sha256:")
    others = ["sample_app/requirements.txt", "roles/app/files/server/gunicorn.txt"]
    assert not any(re.search(rf"(?m)^{package}==", (ROOT / other).read_text()) for other in others)


def test_what_is_not_pinned_is_no_dependency() -> None:
    with pytest.raises(ValueError, match="nothing-of-this-name is not pinned"):
        figures.pinned((ROOT / "requirements.txt").read_text(), "nothing-of-this-name")


# --- figures


def test_a_spread_is_the_median_between_the_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_ratios_are_those_of_each_round() -> None:
    # Everything took twice as long in the second round, and nothing follows from that.
    assert str(Spread.ratios([3.0, 6.0], [2.0, 4.0])) == "1.50 (1.50 to 1.50)"


def test_time_per_request_is_of_each_round() -> None:
    rounds = [{"requests": 10, "cpu": {"app": 100, "nginx": 50}}, {"requests": 5, "cpu": {"app": 100, "nginx": 0}}]
    assert figures.per_request(rounds, "app", "nginx") == [15.0, 20.0]
    assert figures.segments(rounds, ["app", "nginx"], 1.75) == pytest.approx([1.5, 0.25])


def test_a_table_holds_what_markdown_would_take_for_its_own() -> None:
    table = Table("Title", "word " * 40, ("a", "b"), [("one | two\nthree", "4")])
    assert list(table.lines())[-1] == "| one \\| two three | 4 |"
    assert max(map(len, table.lines())) <= 120


# --- what is compared


SERVER_SITE = {**SITE, "name": path.DEFAULT, "domains": ["gunicorn.bench.test"], "max_body_size": "1m"}


def test_each_server_is_there_once_as_it_is_deployed() -> None:
    found = list(path.cells({server: server == path.DEFAULT for server in path.SERVERS}))
    assert [cell.server for cell in found if cell.is_base] == [path.DEFAULT]
    small = [cell for cell in found if cell.kind == path.SMALL]
    assert sorted(cell.server for cell in small if cell.deployed) == sorted(path.SERVERS)
    assert len({cell.site for cell in small}) == len(small)


def test_the_inventory_has_what_is_measured() -> None:
    text = (hosts.HERE / "inventory.yml").read_text()
    apps = yaml.safe_load(text)["slipway"]["hosts"]["slipway-bench-servers"]["slipway_apps"]
    assert {app: said["server"] for app, said in apps.items()} == {server: server for server in path.SERVERS}
    assert all(said["domains"] == [f"{app}.bench.test"] for app, said in apps.items())
    names = re.findall(r"^\s+(slipway-bench-[a-z-]+)(?:\[1:8\])?:$", text, re.MULTILINE)
    asked = re.findall(r'"(slipway-bench-[a-z-]+)"', "".join(file.read_text() for file in hosts.HERE.glob("*.py")))
    assert set(asked) <= set(names) and len(growth.HOSTS) == 4 and max(growth.HOSTS) == 8


def test_what_slipway_writes_is_read() -> None:
    site = render(SERVER_SITE)["sites/gunicorn.conf"]
    off = path.variant(site, path.DEFAULT, "off.bench.test", keepalive=False, address="")
    assert "keepalive 32;" in site and "keepalive" not in off.partition("server {")[0]
    with pytest.raises(ValueError, match="the site of uvicorn has no upstream"):
        path.variant(site, "uvicorn", "off.bench.test", keepalive=False, address="")


class Quick(http.server.BaseHTTPRequestHandler):
    """An app that says how it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"connection": self.headers.get("Connection", ""), "port": self.client_address[1]}).encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def app() -> Iterator[int]:
    """The port of an app."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quick) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_nginx_serves_the_ways_that_are_compared(tmp_path: Path, app: int) -> None:
    files = render(SERVER_SITE)
    site = files["sites/gunicorn.conf"]
    ways = [
        path.variant(site, path.DEFAULT, f"{'on' if keepalive else 'off'}.bench.test", keepalive, f"127.0.0.1:{app}")
        for keepalive in (True, False)
    ]
    ways += [path.variant(site, path.DEFAULT, "unix-off.bench.test", keepalive=False, address=""), path.FLOOR]
    front = Front(tmp_path, files)
    front.certify(SERVER_SITE)
    text = "\n".join(ways)
    for place, here in front.places.items():
        text = text.replace(place, here)
    (tmp_path / "conf.d/bench.conf").write_text(text)
    assert front.judge() == ""
    with front.running():
        kept, closed = (
            [front.ask("/", host=f"{name}.bench.test", name="gunicorn.bench.test").seen() for _ in range(2)]
            for name in ("on", "off")
        )
        assert [answer["connection"] for answer in closed] == ["close", "close"]
        assert [answer["connection"] for answer in kept] == ["", ""]
        floor = front.ask("/", host="floor.bench.test", name="gunicorn.bench.test")
        assert floor.status == 200 and json.loads(floor.body)["message"] == "here I am"


@pytest.mark.parametrize("name", path.SERVERS)
def test_the_other_slot_keeps_connections_on_both_sockets(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(name, tmp_path, more=[listener], script=path.KEEPING)
        port = listener.getsockname()[1]
        for connection in (Connection(tmp_path / "socket"), http.client.HTTPConnection("127.0.0.1", port, SOON)):
            for _ in range(2):
                connection.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.9"})
                answer = connection.getresponse()
                assert answer.status == 200 and answer.read() and not answer.will_close
            connection.close()
        server.process.terminate()
        assert server.process.wait(SOON) == 0


def test_the_trivial_server_answers_and_takes_nothing_from_slipways_nginx(tmp_path: Path) -> None:
    program = Front(tmp_path, {}).command[0]
    directories = {kind: tmp_path / kind for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")}
    for directory in directories.values():
        directory.mkdir()
        if os.geteuid() == 0:
            shutil.chown(directory, "www-data")
    owner = directories["proxy"].stat().st_uid
    temporary = "".join(f"{kind}_temp_path {directory};" for kind, directory in directories.items())
    start = tmp_path / "trivial.conf"
    start.write_text(path.TRIVIAL_NGINX.replace("/run/bench", str(tmp_path)).replace("http {", f"http {{ {temporary}"))
    with subprocess.Popen([program, "-c", start, "-g", "daemon off; error_log stderr;"]) as process:
        while not (tmp_path / "trivial.sock").exists():
            assert process.poll() is None
            time.sleep(0.05)
        connection = Connection(tmp_path / "trivial.sock")
        connection.request("GET", "/")
        assert json.loads(connection.getresponse().read())["message"] == "here I am"
        connection.close()
        process.terminate()
    assert {directory.stat().st_uid for directory in directories.values()} == {owner}


def test_messages_that_come_back_are_counted_and_those_that_do_not(tmp_path: Path) -> None:
    front = Front(tmp_path, render(SITE))
    front.certify(SITE)
    directory = tmp_path / "certificates/shop"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "fullchain.pem", directory / "privkey.pem")
    certificate = (directory / "fullchain.pem").read_text()

    async def ask(answer: str) -> Answers:
        async def repeat(connection: websockets.ServerConnection) -> None:
            async for message in connection:
                await connection.send(answer or message)

        async with websockets.serve(repeat, "127.0.0.1", 0, ssl=context) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            return await path.echo("127.0.0.1", f"shop.example.com:{port}", certificate, 3)

    good = asyncio.run(ask(""))
    assert good.requests > path.SOCKETS and good.failed == 0
    wrong = asyncio.run(ask("another"))
    assert wrong.failed == wrong.requests
    nobody = asyncio.run(path.echo("127.0.0.1", "shop.example.com:1", certificate, 3))
    assert nobody.failed >= nobody.requests


def main_of(app: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{app}", hosts.HERE / "apps" / app / "main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked_asgi(method: str, where: str, body: bytes) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(main_of("asgi").app({"type": "http", "method": method, "path": where}, receive, send))
    return sent[0]["status"], sent[1]["body"]


def asked_wsgi(method: str, where: str, body: bytes) -> tuple[int, bytes]:
    said: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": where,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    content = b"".join(main_of("wsgi").app(environ, lambda status, _headers: said.append(status)))
    return int(said[0].split()[0]), content


@pytest.mark.parametrize(
    ("method", "where", "body"),
    [
        ("GET", "/", b""),
        ("GET", "/large", b""),
        ("GET", "/ready", b""),
        ("GET", "/api/about", b""),
        ("POST", "/upload", b"x" * 100_000),
        ("POST", "/api/echo", b"7 12"),
        ("GET", "/nowhere", b""),
    ],
)
def test_both_apps_say_the_same(method: str, where: str, body: bytes) -> None:
    status, content = asked_asgi(method, where, body)
    assert asked_wsgi(method, where, body) == (status, content)
    assert status == (404 if where == "/nowhere" else 200)
    assert where != "/large" or len(content) == 100_000


@pytest.mark.parametrize("app", ["asgi", "wsgi", "fastapi"])
def test_a_version_is_in_the_source(app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "WORK", tmp_path)
    directory = hosts.source(app, 7)
    assert 'VERSION = "7"' in (directory / "main.py").read_text()
    assert "--hash=" in (directory / "requirements.txt").read_text()


def test_a_version_of_the_sample_app_has_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "WORK", tmp_path)
    directory = hosts.sample_app(3, provisioning.PACKAGES[:2])
    assert 'VERSION = "1.0.3"' in (directory / "guestbook/about.py").read_text()
    text = (directory / "requirements.txt").read_text()
    assert all(re.search(rf"(?m)^{name}==", text) for name in ("fastapi", *provisioning.PACKAGES[:2]))


# --- what fails


@dataclasses.dataclass(frozen=True)
class Still(hosts.Client):
    """A host on which nothing happens, and which asks itself; what has a word in it fails at its second time.

    Attributes:
        word: the word.
        seen: what was run.
    """

    word: str
    seen: list[str] = dataclasses.field(default_factory=list)

    @property
    def address(self) -> str:
        return "127.0.0.1"

    def run(self, script: str, given: str | bytes = b"") -> str:
        self.seen.append(f"{script} {given!r}")
        if self.word in script and sum(self.word in each for each in self.seen) > 1:
            raise hosts.Failed("docker ended with 1:\nunable to connect\n")
        return CPU if "cpu.stat" in script else WRK


def still_rounds(word: str) -> dict[str, dict[str, Any]]:
    small = [cell for cell in path.cells({path.DEFAULT: True}) if cell.kind == path.SMALL]
    host = Still("host", word)
    return {cell["site"]: cell for cell in path._rounds(hosts.Run(quick=True), host, host, small)}


def test_what_fails_in_a_round_is_told_and_the_others_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = still_rounds("floor.bench.test")
    assert found["floor.bench.test"]["problem"] == "unable to connect"
    others = [cell for site, cell in found.items() if site != "floor.bench.test"]
    assert all(cell["problem"] == "" and len(cell["rounds"]) == 2 for cell in others)
    assert "nginx, which answers by itself: unable to connect" in capsys.readouterr().out


def test_without_what_others_are_compared_with_there_is_nothing() -> None:
    with pytest.raises(hosts.Failed, match="nothing to compare with: unable to connect"):
        still_rounds("gunicorn.bench.test")


def test_nobody_who_answers_is_no_figure() -> None:
    with pytest.raises(hosts.Failed, match="nobody answered"):
        Still("host", "nothing").sample(UNITS, lambda: Answers(0, 0))


def test_what_fails_is_noted_and_no_loss_to_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    run = hosts.Run()
    for what, shares in (("one", 1), ("none", 0), ("two", 2)):
        with run.attempt(what):
            print(f"a share of 1 / {shares} is {1 / shares}")
    assert run.failed == ["none"]
    assert "is 0.5" in capsys.readouterr().out


# --- the page


def rounds(*microseconds: float) -> list[dict[str, Any]]:
    """Rounds of 1000 requests with a time for each of the app's requests, and other times that are always the same."""
    return [
        {
            "requests": 1000,
            "failed": 0,
            "cpu": {"app": time * 1000, "nginx": 40_000, "journal": 10_000, "host": (time + 60) * 1000},
        }
        for time in microseconds
    ]


GOOD = {"requests": 500, "failed": 0, "kinds": {}, "silence": 0.01, "refused": ""}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What all parts could have found."""
    times = [{"requests": 500, "failed": 2, "kinds": {"POST kept: status 502": 2}, "silence": 0.3, "refused": ""}]
    cells = [
        {**cell.__dict__, "problem": "", "rounds": rounds(100, 110) if cell.keepalive else rounds(150, 160)}
        for cell in path.cells({server: server == path.DEFAULT for server in path.SERVERS})
    ]
    cells[-1] |= {"problem": "no good answer", "rounds": []}
    found = {
        "path": {"versions": ["nginx 1.26.3"], "cells": cells},
        "reload": {"servers": {server: dict.fromkeys(reload.ACTIONS, times) for server in path.SERVERS}},
        "provisioning": {
            "seconds": {
                step: {"slipway": [9.0, 8.0], "by_hand": [3.0, 4.0], "facts": [2.0, 2.0]} for step in provisioning.STEPS
            },
            "tasks": {step: [{"one": 4.5, "two": 0.9}, {"one": 2.0}] for step in provisioning.STEPS},
        },
        "growth": {
            "apps": {
                str(number): {"unchanged": [4.0 + number], "changed": [8.0 + number], "memory": 51200}
                for number in growth.APPS
            },
            "memory": {"alone": {"processes": 3, "memory": 1024}, "preloaded": {"processes": 3, "memory": 512}},
            "hosts": {str(number): [4.0 + number] for number in growth.HOSTS},
        },
        "tutorial": {
            "versions": {"slipway": ["nginx 1.26.3"], "tutorial": ["nginx 1.26.3"]},
            "rounds": {"slipway": rounds(90, 90, 90), "tutorial": rounds(190, 190, 240)},
            "logged": 2990,
            "deploys": {tutorial.SLIPWAY: [GOOD, GOOD], tutorial.RESTART: times},
        },
    }
    return {part: {"machine": "a machine", "quick": False, "found": found[part]} for part in page.PARTS}


def test_the_page_tells_each_part(measured: dict[str, Any]) -> None:
    text = "\n".join(page.page(measured))
    for line in (
        "| gunicorn | unix | on | yes | 1.00 (1.00 to 1.00) | 105 | 40 | 10 | 2,000 | 0 |",
        "| uvicorn | unix | off | yes | 1.32 (1.31 to 1.33) | 155 | 40 | 10 | 2,000 | 0 |",
        "| nginx, to another nginx | unix | off |  | not measured: no good answer | - | - | - | - | - |",
        "| waitress | restart | 1 times | 500 | 2 (2 POST kept: status 502) | 300 (300 to 300) |",
        "| a bare host | 2.50 (2.00 to 3.00) | 4.25 (4.00 to 4.50) | 2 |",
        "| no change | one | 38% (25% to 50%) |",
        "| 20 | 4.80 (4.80 to 4.80) | 3.11 (3.11 to 3.11) | 50.0 |",
        "| on | 3 | 0.5 | 0.50 |",
        "| 8 | 2.40 (2.40 to 2.40) |",
        "| slipway | 0.60 (0.50 to 0.60) | 90 | 40 | 10 | 150 | 3,000 | 0 |",
        "| Slipway, `playbooks/deploy.yml` | 2 | 1,000 | 0 | 10 (10 to 10) |",
    ):
        assert line in text, line
    assert "20 apps shall cost at most 2.5 times one. **They do not.**" in text.replace("\n", " ")
    assert "Slipway shall need at most 0.75 of it. It does." in text.replace("\n", " ")
    assert "where Slipway's shall all be. **10 of them are missing.**" in text.replace("\n", " ")
    assert "Slipway shall fail none. None did." in text.replace("\n", " ")


def test_every_row_has_all_columns(measured: dict[str, Any]) -> None:
    tables = [table for part in page.PARTS for table in page.PARTS[part][1].tables(measured[part]["found"])]
    assert len(tables) > len(page.PARTS)
    for table in tables:
        assert all(len(cells) == len(table.head) for cells in table.rows), table.title


def test_every_plot_of_the_page_is_drawn_and_all_is_json(measured: dict[str, Any]) -> None:
    data = json.loads(json.dumps(page.data(measured)))
    shown = re.findall(r"\(bench/(\w+)\.svg\)", "\n".join(page.page(measured)))
    assert sorted(plot["name"] for plot in data["plots"]) == sorted(shown)
    assert set(data["parts"]) == set(page.PARTS)


def test_links_of_the_page_lead_somewhere(measured: dict[str, Any]) -> None:
    text = "\n".join(page.page(measured))
    for target in re.findall(r"\]\((\.\./[^)\s]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    text = "\n".join(page.page(page.results(tmp_path)))
    assert all(f"`make bench PART={part}`" in text for part in page.PARTS)


def test_small_counts_are_not_taken_for_figures(measured: dict[str, Any]) -> None:
    quick = {"tutorial": {**measured["tutorial"], "quick": True}}
    assert "In small counts, which say little." in "\n".join(page.page(quick))


def test_what_was_measured_in_part_is_told(measured: dict[str, Any]) -> None:
    found = {part: {**result, "found": dict(result["found"])} for part, result in measured.items()}
    found["reload"]["found"]["servers"] = {"gunicorn": {"reload": [], "switch": [GOOD]}}
    for part, what, name in (
        ("provisioning", "seconds", provisioning.DEPENDENCY),
        ("provisioning", "seconds", provisioning.CODE),
        ("tutorial", "deploys", tutorial.SLIPWAY),
    ):
        found[part]["found"][what] = {key: value for key, value in found[part]["found"][what].items() if key != name}
    del found["growth"]["found"]["apps"]
    text = "\n".join(page.page(found))
    assert "| gunicorn | switch |" in text and "| gunicorn | reload |" not in text
    assert "| a bare host |" in text and "| changed code |" not in text
    assert "| 8 | 2.40" in text and "20 apps" not in text
    assert "| slipway | 0.60" in text and "None did." not in text
    assert "bench/growth.svg" not in text and [plot["name"] for plot in page.data(found)["plots"]].count("growth") == 0
