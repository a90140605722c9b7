"""What is said of a host and its apps, on a host that is a directory, with real processes and a real server.

Only systemd and journalctl are stood in for, as far as they are asked.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_certificates import DAY, NOW, certificate_text, key_text, new_key
from test_nginx_templates import SITE, render

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk, Wish
from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, point
from ansible_collections.slipway.asgi.plugins.module_utils.history import History
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Layout, Systemd
from ansible_collections.slipway.asgi.plugins.module_utils.realms import Front, Pair, Realm, self_signed
from ansible_collections.slipway.asgi.plugins.module_utils.slots import Slots
from ansible_collections.slipway.asgi.plugins.modules import status_info as module

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "slipway-shop@green.service"
GROUP = "/system.slice/shop"
# What a server says of itself.
SIZE = {"workers": 2, "threads": 1, "why": "one for each of 2 CPUs"}
# A server with two workers, one of which has started a program of its own; beside them Python's resource tracker, and a
# program that the server has started.
SERVER = """
import os, signal, subprocess, sys
from multiprocessing import resource_tracker


signal.alarm(120)
resource_tracker.ensure_running()
subprocess.Popen(["sleep", "120"])
for number in range(2):
    if os.fork() == 0:
        signal.alarm(120)
        if number:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        os.write(1, b"there\\n")
        while True:
            signal.pause()
while True:
    signal.pause()
"""
JOURNALCTL = """#!/bin/sh
echo "$@" >{directory}/asked
cat {directory}/lines
exec {then}
"""


class StandIn(Systemd):
    """What systemd says of units."""

    def __init__(self) -> None:
        self.units: dict[str, dict[str, str]] = {}

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        none = {"ActiveState": "inactive", "MainPID": "0", "ControlGroup": ""}
        return {unit: {"Id": unit, **none, **self.units.get(unit, {})} for unit in units}


class App(http.server.BaseHTTPRequestHandler):
    """An app that is asked whether it is ready."""

    def do_GET(self) -> None:
        host: Host = self.server.host
        host.asked.append((self.path, self.headers["Host"], self.headers["X-Forwarded-Proto"]))
        self.send_response(host.status)
        self.send_header("X-Slipway-Release", host.serves)
        self.send_header("Content-Length", str(len(host.body)))
        self.end_headers()
        self.wfile.write(host.body)

    def address_string(self) -> str:
        return "front"

    def log_message(self, *_: Any) -> None:
        pass


class Host:
    """A host on which shop is live, in slot green."""

    def __init__(self, root: Path, site: str, me: dict[str, str]) -> None:
        self.root = root
        self.systemd = StandIn()
        self.layout = Layout("shop", root)
        self.asked: list[tuple[str, ...]] = []
        self.status, self.serves, self.body = 200, "r1", b""
        for place in ("boot", "proc", "etc/nginx/slipway/maintenance", "etc/nginx/slipway/current/sites", "run"):
            (root / place).mkdir(parents=True)
        self.site = root / "etc/nginx/slipway/current/sites/shop.conf"
        self.site.write_text(site)
        self.booted(NOW)
        self.systemd.units["nginx.service"] = {"ActiveState": "active"}
        self.systemd.units[SERVICE] = {"ActiveState": "active"}
        release = self.layout.release("r1")
        release.mkdir(parents=True)
        (release / "complete").touch()
        (root / "run/slipway/shop-green").mkdir(parents=True)
        self.layout.slot("green").mkdir(parents=True)
        point(self.layout.slot("green") / "release", "../../releases/r1")
        point(self.layout.slot("green") / "socket", str(self.layout.socket("green")))
        point(self.layout.live, "slots/green")
        generations = Slots(self.layout, self.systemd).generations("green")
        generations.activate(generations.stage([File("environment", b"", **me)]))
        History(self.layout).remember()
        self.certify(NOW + 90 * DAY)

    def booted(self, when: datetime.datetime) -> None:
        (self.root / "proc/stat").write_text(f"cpu  1 2 3\nbtime {when.timestamp():.0f}\nprocesses 9\n")

    def certify(self, end: datetime.datetime, begin: datetime.datetime = NOW - DAY) -> None:
        key = new_key()
        pair = Pair(certificate_text(key, ["shop.example.com"], begin, end), key_text(key))
        Realm(self.root / "etc/slipway/certificates", "shop").put(pair, Front())

    def sized(self, text: str) -> None:
        (self.root / "run/slipway/shop-green/sizing").write_text(text)

    def runs(self, master: int, members: list[int]) -> None:
        """Have these processes of this machine be the app's."""
        group = self.root / "sys/fs/cgroup" / GROUP[1:]
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in members))
        for pid in members:
            (self.root / f"proc/{pid}").symlink_to(f"/proc/{pid}")
        self.systemd.units[SERVICE].update(MainPID=str(master), ControlGroup=GROUP)

    def look(self, *meant: str, only: str = "") -> dict[str, Any]:
        return module.look(meant or ("shop",), only, self.systemd, self.root)

    def shop(self) -> dict[str, Any]:
        """What is said of the app, which is the only one."""
        (app,) = self.look()["apps"]
        return dict(app)

    def problems(self) -> list[str]:
        """What is said to be amiss, of the host and of the app, and that it is counted."""
        found = self.look()
        problems = [*found["problems"], *(problem for app in found["apps"] for problem in app["problems"])]
        assert found["amiss"] == len(problems)
        return problems


@pytest.fixture(scope="module")
def site() -> str:
    """nginx's site of the app, as the role writes it."""
    return render(SITE)["sites/shop.conf"]


@pytest.fixture
def host(tmp_path: Path, site: str, me: dict[str, str]) -> Iterator[Host]:
    made = Host(tmp_path, site, me)
    with socketserver.ThreadingUnixStreamServer(str(made.layout.socket("green")), App) as server:
        server.host = made
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        server.shutdown()


@pytest.fixture
def processes(host: Host) -> Iterator[int]:
    """A server with two workers, as the app's; its main process."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stdout
        assert [server.stdout.readline() for _ in range(2)] == ["there\n"] * 2
        listed = subprocess.check_output(["pgrep", "--session", str(server.pid)], text=True)
        host.runs(server.pid, [int(pid) for pid in listed.split()])
        yield server.pid
        os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture
def journal(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Have these lines in the journal of requests, the newest first; returns the file that says what was asked."""
    directory = tmp_path / "journal"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def lines(*entries: dict[str, Any] | str, then: str = "true") -> Path:
        (host.root / "var/log/journal/0123.requests").mkdir(parents=True, exist_ok=True)
        text = [entry if isinstance(entry, str) else f"{json.dumps(entry)}\n" for entry in entries]
        (directory / "lines").write_bytes("".join(text).encode(errors="surrogateescape"))
        (directory / "journalctl").write_text(JOURNALCTL.format(directory=directory, then=then))
        (directory / "journalctl").chmod(0o755)
        return directory / "asked"

    return lines


def request(status: int = 200, app: str = "shop", age: float = 0) -> dict[str, Any]:
    """A line of the journal, of a request so many seconds ago."""
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
    return {"time": when.isoformat(timespec="seconds"), "app": app, "uri": '/"status":500', "status": status}


class TestApp:
    def test_all_is_well(self, host: Host) -> None:
        host.booted(NOW + DAY)
        found = host.look()
        assert (found["problems"], found["amiss"], found["requests"]) == ([], 0, None)
        (app,) = found["apps"]
        assert time.time() - app.pop("since") < 60
        assert app == {
            "name": "shop",
            "slot": "green",
            "release": "r1",
            "ready": True,
            "workers": None,
            "workers_meant": None,
            "memory": None,
            "requests": None,
            "errors": None,
            "certificate_days": 89,
            "problems": [],
        }
        assert host.asked == [("/ready", "shop.example.com", "https")]

    @pytest.mark.parametrize(
        ("status", "serves", "said"),
        [
            (503, "r1", "NOT READY: status 503: the database is away"),
            (404, "r1", "NOT READY: status 404: the database is away"),
            (200, "r2", "NOT READY: release r2 answered in place of r1"),
        ],
    )
    def test_it_does_not_answer_well(self, host: Host, status: int, serves: str, said: str) -> None:
        host.status, host.serves, host.body = status, serves, b"the database is away"
        assert host.problems() == [said]
        assert host.shop()["ready"] is False

    @pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating"])
    def test_a_slot_that_does_not_run_is_not_started_by_a_question(self, host: Host, state: str) -> None:
        host.systemd.units[SERVICE]["ActiveState"] = state
        assert host.problems() == [f"NOT READY: {SERVICE} is {state}"]
        assert host.asked == []

    def test_a_reload_is_no_trouble(self, host: Host) -> None:
        for unit in (SERVICE, "nginx.service"):
            host.systemd.units[unit]["ActiveState"] = "reloading"
        assert host.problems() == []

    @pytest.mark.parametrize(
        ("lost", "said"),
        [
            ("live", "NOT LIVE: the link live is lost; playbooks/deploy.yml puts it back"),
            ("slots/green/release", "NOT READY: the link of slot green to its release is lost; playbooks/deploy.yml"),
            ("slots/green/socket", "NOT READY: the link of slot green to its socket is lost; playbooks/deploy.yml"),
        ],
    )
    def test_a_link_is_lost(self, host: Host, lost: str, said: str) -> None:
        (host.layout.home / lost).unlink()
        assert [problem[: len(said)] for problem in host.problems()] == [said]
        assert host.shop()["ready"] is False

    def test_a_file_of_its_release_is_lost(self, host: Host) -> None:
        (host.layout.release("r1") / "manifest").write_text('{"src/main.py": 7}')
        said = "its release is damaged: src/main.py is gone; playbooks/deploy.yml builds it anew"
        assert host.problems() == [said]
        assert host.shop()["ready"] is True

    def test_nginx_has_no_site(self, host: Host) -> None:
        host.site.unlink()
        assert host.problems() == ["NOT READY: nginx has no site for it; playbooks/site.yml puts it back"]

    def test_no_release_of_it_was_ever_ready(self, host: Host) -> None:
        host.layout.live.unlink()
        host.layout.history.unlink()
        assert host.problems() == ["NOT LIVE: no release of it was ever ready"]

    def test_one_that_was_never_deployed(self, host: Host) -> None:
        blog, shop = host.look("shop", "blog")["apps"]
        assert shop["problems"] == []
        assert blog["problems"] == ["NOT DEPLOYED; playbooks/site.yml brings it"]
        assert {blog[key] for key in ("slot", "release", "since", "workers", "memory", "certificate_days")} == {None}

    def test_one_that_is_not_in_the_inventory(self, host: Host) -> None:
        blog, shop = host.look("blog")["apps"]
        assert (blog["name"], shop["name"]) == ("blog", "shop")
        said = "it is not in the inventory; playbooks/remove.yml -e app=shop takes it away"
        assert shop["problems"] == [said]

    def test_one_alone(self, host: Host) -> None:
        assert [app["name"] for app in host.look("blog", "shop", only="shop")["apps"]] == ["shop"]
        assert [app["name"] for app in host.look("blog", only="shop")["apps"]] == ["shop"]
        with pytest.raises(Failed, match='app is "shoop": the apps of this host are blog, shop'):
            host.look("blog", "shop", only="shoop")

    def test_maintenance(self, host: Host) -> None:
        (host.root / "etc/nginx/slipway/maintenance/shop").touch()
        (problem,) = host.problems()
        assert problem.startswith(f"under maintenance since {datetime.datetime.now(datetime.UTC):%Y-%m-%d}")


class TestProcesses:
    @pytest.mark.usefixtures("processes")
    def test_workers_and_memory(self, host: Host) -> None:
        host.sized(json.dumps(SIZE))
        shop = host.shop()
        assert (shop["workers"], shop["workers_meant"], shop["problems"]) == (2, 2, [])
        # Four of Python's processes and a small one, with what they share.
        assert 2**20 < shop["memory"] < 2**29

    @pytest.mark.usefixtures("processes")
    def test_too_few_workers(self, host: Host) -> None:
        host.sized(json.dumps({**SIZE, "workers": 4}))
        assert host.problems() == ["2 of 4 workers"]

    @pytest.mark.parametrize(("meant", "workers", "problems"), [(1, 1, []), (2, 0, ["0 of 2 workers"])])
    def test_a_server_without_a_master(self, host: Host, meant: int, workers: int, problems: list[str]) -> None:
        host.runs(os.getpid(), [os.getpid()])
        host.sized(json.dumps({**SIZE, "workers": meant}))
        shop = host.shop()
        assert (shop["workers"], shop["problems"]) == (workers, problems)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "{}", "[]", "2", "\0", "[" * 5000, json.dumps(SIZE)[:-1]),
            *(json.dumps({**SIZE, "workers": wrong}) for wrong in ("2", True, -1, 10**1000)),
            json.dumps({**SIZE, "why": "\033[2J"}),
        ],
    )
    def test_what_a_server_says_of_itself_is_garbage(self, host: Host, text: str) -> None:
        host.sized(text)
        assert host.shop()["workers_meant"] is None

    def test_an_app_cannot_hold_the_reader_up(self, host: Host) -> None:
        os.mkfifo(host.root / "run/slipway/shop-green/sizing")
        assert host.shop()["workers_meant"] is None

    def test_processes_that_have_ended(self, host: Host) -> None:
        host.runs(2**22 + 1, [2**22 + 1, 2**22 + 2])
        shop = host.shop()
        assert (shop["workers"], shop["memory"]) == (0, None)


class TestRequests:
    def test_are_counted_by_app(self, host: Host, journal: Callable[..., Path]) -> None:
        asked = journal(*[request()] * 90, request(404), *[request(503), request(500)] * 2, request(500, "blog"))
        found = host.look()
        assert found["requests"] == {"seconds": 300, "whole": True}
        assert (found["apps"][0]["requests"], found["apps"][0]["errors"]) == (95, 4)
        assert found["amiss"] == 0
        options = "--quiet --no-pager --output=cat --reverse --since=-300s --lines=30000"
        assert asked.read_text() == f"--namespace=requests --identifier=nginx {options}\n"

    def test_too_many_have_failed(self, host: Host, journal: Callable[..., Path]) -> None:
        journal(*[request()] * 1900, *[request(502)] * 100)
        assert host.problems() == ["100 of 2,000 requests failed"]

    def test_a_single_bad_page_is_not_too_many(self, host: Host, journal: Callable[..., Path]) -> None:
        journal(*[request(500)] * 2)
        assert (host.shop()["errors"], host.problems()) == (2, [])
        journal(*[request(500)] * 3)
        assert host.problems() == ["3 of 3 requests failed"]

    def test_long_lines_take_no_memory(self, host: Host, journal: Callable[..., Path]) -> None:
        journal(*[{**request(), "uri": "/" * 1_000_000}] * 40)
        tracemalloc.start()
        try:
            assert host.shop()["requests"] == 40
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()

    def test_there_are_none(self, host: Host, journal: Callable[..., Path]) -> None:
        journal()
        assert host.look()["requests"] == {"seconds": 300, "whole": True}
        assert (host.shop()["requests"], host.shop()["errors"], host.problems()) == (0, 0, [])

    def test_they_are_not_logged(self, host: Host, journal: Callable[..., Path]) -> None:
        asked = journal(request())
        (host.root / "var/log/journal/0123.requests").rename(host.root / "var/log/journal/0123")
        assert host.look()["requests"] is None
        assert host.shop()["requests"] is None
        assert not asked.exists()

    def test_what_is_no_request(self, host: Host, journal: Callable[..., Path]) -> None:
        strange = ['{"app": "shop"}', '{"app": [], "status": 500}', '{"app": "shop", "status": "x"}', "[" * 100000, "x"]
        journal(request(), *(f"{line}\n" for line in strange), request())
        assert (host.shop()["requests"], host.shop()["errors"]) == (2, 0)

    def test_a_client_that_sends_no_text(self, host: Host, journal: Callable[..., Path]) -> None:
        journal('{"app": "shop", "uri": "/\udcff", "status": 500}\n', *[request()] * 99)
        assert (host.shop()["requests"], host.shop()["errors"]) == (100, 1)

    def test_more_than_can_be_counted(
        self, host: Host, journal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_LINES", 3)
        journal(request(), request(), request(age=40))
        found = host.look()["requests"]
        assert found["whole"] is False
        assert 40 <= found["seconds"] < 300

    def test_a_journal_that_is_slow(
        self, host: Host, journal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "COUNT_SECONDS", 0.5)
        journal(request(), request(503), request(age=60), '{"app": "sh', then="sleep 120")
        found = host.look()
        assert found["requests"]["whole"] is False
        assert 60 <= found["requests"]["seconds"] < 300
        assert (found["apps"][0]["requests"], found["apps"][0]["errors"]) == (3, 1)


class TestCertificate:
    @pytest.mark.parametrize(
        ("life", "left", "said"),
        [
            (398, 15, ""),
            (398, 13, "its certificate expires in 12 days"),
            (90, 15, ""),
            (90, 4, "its certificate expires in 3 days"),
            (6, 2, ""),
            (6, 0.9, "its certificate expires in 0 days"),
        ],
    )
    def test_it_is_pointed_out_when_nobody_has_renewed_it(self, host: Host, life: int, left: float, said: str) -> None:
        end = NOW + left * DAY
        host.certify(end, end - life * DAY)
        assert host.problems() == ([said] if said else [])

    def test_it_has_expired(self, host: Host) -> None:
        host.certify(NOW - 2 * DAY, NOW - 92 * DAY)
        assert host.problems() == [f"its certificate expired on {NOW - 2 * DAY:%Y-%m-%d %H:%M}"]
        assert host.shop()["certificate_days"] < 0

    def test_its_ca_has_not_issued_what_is_wanted(self, host: Host) -> None:
        desk = Desk(host.root)
        desk.wishes.mkdir(parents=True)
        desk.state.mkdir(parents=True)
        wish = Wish("shop", ("shop.example.com",), "https://ca.example.com/directory")
        desk.wish("shop").write_text(wish.text())
        assert host.problems() == []
        message = "DNS knows no address of www.shop.example.com"
        desk.report.write_text(json.dumps({"shop": {"state": "failed", "messages": [message]}}))
        assert host.problems() == [], "it could not be renewed, which leaves time"
        wider = dataclasses.replace(wish, domains=("shop.example.com", "www.shop.example.com"))
        desk.wish("shop").write_text(wider.text())
        assert host.problems() == [f"no certificate of its CA: {message}"]
        desk.wish("shop").write_text(wish.text())
        Realm(host.root / "etc/slipway/certificates", "shop").put(self_signed("shop", wish.domains), Front())
        assert host.problems() == [f"no certificate of its CA: {message}"]
        desk.forget("shop")
        assert host.problems() == []

    def test_there_is_none(self, host: Host) -> None:
        (host.root / "etc/slipway/certificates/shop").unlink()
        assert host.problems() == ["it has no certificate; playbooks/site.yml brings one"]

    def test_it_is_garbage(self, host: Host) -> None:
        (host.root / "etc/slipway/certificates/shop/fullchain.pem").write_text("-----BEGIN")
        (problem,) = host.problems()
        assert problem.startswith("its certificate cannot be read: openssl x509")


class TestMachine:
    def test_slipway_was_never_on_it(self, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/stat").write_text("btime 1795245060\n")
        found = module.look(["shop"], "", StandIn(), tmp_path)
        assert found["apps"] == []
        assert found["problems"] == ["Slipway is not on this host; playbooks/site.yml brings it"]
        assert found["amiss"] == 1

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_nginx_does_not_run(self, host: Host, state: str) -> None:
        host.systemd.units["nginx.service"]["ActiveState"] = state
        assert host.problems() == [f"nginx is {state}"]
        assert host.shop()["ready"] is True

    def test_the_disk_is_that_of_the_releases(self, host: Host) -> None:
        shown = subprocess.check_output(["df", "--output=pcent,size", "--block-size=1", host.root], text=True)
        percent, size = shown.splitlines()[1].split()
        disk = host.look()["disk"]
        assert (f"{disk['percent']}%", disk["size"]) == (percent, int(size))
        assert module.disk_of(host.root / "no/such/place") == module.disk_of(host.root)

    def test_the_disk_is_full(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        percent = host.look()["disk"]["percent"]
        monkeypatch.setattr(module, "FULL_PERCENT", percent)
        assert [problem.split(":")[0] for problem in host.problems()] == ["the disk is nearly full"]
        monkeypatch.setattr(module, "FULL_PERCENT", percent + 1)
        assert host.problems() == []

    def test_a_package_wants_a_restart(self, host: Host) -> None:
        noted = host.root / "run/reboot-required"
        noted.touch()
        os.utime(noted, (1795245060, 1795245060))
        assert host.problems() == ["reboot pending since 2026-11-21 07:11"]

    def test_a_kernel_was_installed_since_the_host_has_started(self, host: Host) -> None:
        kernel = host.root / "boot/vmlinuz-6.12.48+deb13-amd64"
        kernel.touch()
        # As dpkg does, which keeps a file's own time.
        os.utime(kernel, (1795245060, 1795245060))
        host.booted(NOW + DAY)
        assert host.problems() == []
        host.booted(NOW - DAY)
        (problem,) = host.problems()
        assert problem.startswith(f"reboot pending since {datetime.datetime.now(datetime.UTC):%Y-%m-%d}")

    def test_nothing_is_changed(self, host: Host) -> None:
        def snapshot() -> dict[str, tuple[int, ...]]:
            found = {path: path.lstat() for path in host.root.rglob("*")}
            return {str(path): (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in found.items()}

        before = snapshot()
        host.look()
        assert snapshot() == before


# As YAML reads a variable with nothing after its colon.
NO_APPS = {"slipway_apps": None}


def test_the_playbook(playbook: Callable[..., Any], tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROOT / "playbooks/status.yml").read_text())[0]["tasks"]
    # Nothing of the apps is resolved: what nobody has defined does no harm.
    apps = {"slipway_apps": {"shop": {"secrets": {"key": "{{ vault_of_nobody }}"}, "domains": "{{ nothing }}"}}}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": port}
    hosts = {"astray": {"ansible_host": "{{ nobody }}"}, "away": {**away, **apps}, "bare": NO_APPS, "here": apps}
    found = playbook(tmp_path, tasks, hosts, "--check")
    # One for all, and where not one of them is well, too.
    *_, table = found["astray"]
    assert [line.split(":")[0] for line in table["msg"].splitlines() if line[:2] != "  "][1:-3] == list(hosts)
    told = "\n".join(table["msg"].split("\n    ! "))
    assert re.findall("^NOT [A-Z]+", told, re.MULTILINE) == ["NOT KNOWN", "NOT REACHED"]
    assert re.search("^(here|bare): disk .*\nSlipway is not on this host", told, re.MULTILINE)
    # And each says for itself that not all is well.
    assert [found[name][1]["msg"] for name in ("away", "here", "bare")] == ["the table says what is amiss"] * 3
