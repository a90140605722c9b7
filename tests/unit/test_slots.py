"""The way of a release on a host that is a directory: real small servers on the slots' real sockets, behind real TLS.

Only systemd is stood in for, by a class that starts, stops and signals processes as its units would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from conftest import small_files
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.slipway.asgi.plugins.module_utils import slots as module
from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, Fingerprint
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd, layouts
from ansible_collections.slipway.asgi.plugins.module_utils.probes import Probe
from ansible_collections.slipway.asgi.plugins.module_utils.slots import Front, Slots, Work, locked, summary
from ansible_collections.slipway.asgi.plugins.modules import release as release_module
from ansible_collections.slipway.asgi.plugins.modules import release_info, release_plan
from ansible_collections.slipway.asgi.plugins.modules.release import STATES

DOMAIN = "shop.example.com"
PROBE = Probe("/ready", DOMAIN, 5)

# An app and its server in one: what it serves is pinned when it starts, its settings are read again at a SIGHUP.
SERVER = """
import os, signal, socket, sys

# A test run that is killed leaves nothing behind for long.
signal.alarm(120)
slot, path, configuration = sys.argv[1:]
release = os.path.basename(os.readlink(f"{slot}/release"))
behaviour, _, count = open(f"{slot}/release/behaviour").read().partition(" ")

def take_up(*_):
    global settings
    settings = open(f"{configuration}/gunicorn.conf.py").read()

signal.signal(signal.SIGHUP, take_up)
take_up()
if behaviour == "crashes":
    sys.exit("ImportError: no module named shop")
listener = socket.socket(socket.AF_UNIX)
if os.path.lexists(path):
    os.unlink(path)
listener.bind(path)
listener.listen(64)
answered = 0
while True:
    client, _ = listener.accept()
    request = b""
    while b"\\r\\n\\r\\n" not in request and (part := client.recv(4096)):
        request += part
    lines = request.decode().splitlines() or [""]
    wanted = {"Host: shop.example.com", "X-Forwarded-Proto: https"}
    status = 200 if lines[0] == "GET /ready HTTP/1.1" and wanted <= set(lines) else 400
    answered += status == 200
    if behaviour == "dies" and answered > int(count):
        sys.exit("ValueError: visitor")
    if behaviour == "stumbles" and answered == int(count) + 1:
        status = 503
    if behaviour == "unready" or "unready" in settings or (behaviour == "fades" and answered > int(count)):
        status = 503
    shown = "another" if behaviour == "stranger" else release
    body = "the database is away" if status == 503 else settings
    head = [f"HTTP/1.1 {status} x", f"X-Slipway-Release: {shown}", f"Content-Length: {len(body)}", "", body]
    client.sendall("\\r\\n".join(head).encode())
    client.close()
"""

# What nginx is to a host: TLS on a port of loopback, and each request on a connection of its own over the live link,
# which a file names, so that one front does for all tests.
FRONT = """
import signal, socket, ssl, sys

signal.alarm(900)
certificate, told = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
refused = ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
context.sni_callback = lambda _, name, __: None if name == "shop.example.com" else refused
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    plain, _ = listener.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as client:
            request = client.recv(65536)
            live = open(told).read()
            if not live:
                client.sendall(b"HTTP/1.1 502 x\\r\\nContent-Length: 11\\r\\n\\r\\nbad gateway")
                continue
            with socket.socket(socket.AF_UNIX) as app:
                app.connect(f"{live}/socket")
                app.sendall(request.replace(b"GET /.slipway/ready ", b"GET /ready "))
                while part := app.recv(65536):
                    client.sendall(part)
    except OSError:
        pass
"""


class StandIn(Systemd):
    """What systemd does for an app's units, with what it knows on the disk, so that it outlives a killed deploy."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self.layout = layout
        self.directory = directory
        self.calls: list[str] = []
        directory.mkdir()

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        return {unit: self._show(unit) for unit in units}

    def _show(self, unit: str) -> dict[str, str]:
        place = self._place(unit)
        running = (place / "running").exists()
        if unit.endswith(".service") and running and not self._is_alive(unit):
            # Restart=always
            (place / "restarts").write_text(str(self._restarts(unit) + 1))
            self._start(unit)
        return {
            "Id": unit,
            "ActiveState": "active" if running else "failed" if (place / "failed").exists() else "inactive",
            "SubState": "running" if running else "dead",
            "NRestarts": str(self._restarts(unit)),
            "UnitFileState": "enabled" if (place / "enabled").exists() else "disabled",
            "NeedDaemonReload": "no" if self._text(unit) == self._loaded(unit) else "yes",
        }

    def call(self, *arguments: str) -> None:
        self.calls.append(" ".join(arguments))
        verb, *units = [argument for argument in arguments if not argument.startswith("--")]
        if verb == "daemon-reload":
            for path in self.directory.iterdir():
                (path / "loaded").unlink(missing_ok=True)
        for unit in units:
            getattr(self, f"_{verb.replace('-', '_')}")(unit)
            if verb == "stop" and "--no-block" not in arguments:
                while self._is_alive(unit):
                    time.sleep(0.001)

    def start(self, service: str, seconds: float) -> None:
        assert seconds > 0
        self.call("start", service)

    def verify(self, paths: Sequence[Path]) -> None:
        self.calls.append(f"verify {' '.join(path.name for path in paths)}")
        unknown = [path.name for path in paths if "Unknown=" in path.read_text()]
        if unknown:
            raise Failed(f"systemd does not accept the units as they are:\n{unknown[0]}: Unknown key")

    def remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            shutil.rmtree(path)

    def journal(self, unit: str, since: float) -> str:
        assert since <= time.time()
        log = self._place(unit) / "log"
        return "\n".join(log.read_text().splitlines()[-25:]) if log.exists() else ""

    def end(self) -> None:
        """End every process that is left."""
        for path in self.directory.iterdir():
            self._stop(path.name)

    def _reset_failed(self, unit: str) -> None:
        (self._place(unit) / "failed").unlink()

    def _start(self, unit: str) -> None:
        place, slot = self._place(unit), unit.partition("@")[2].partition(".")[0]
        if command_of := re.search(r"-(migrate|after_switch|after_rollback)@", unit):
            command = (self.layout.configuration / slot / command_of[1]).read_text()
            with (place / "log").open("a") as log:
                if subprocess.run(["/bin/sh", "-ec", command], stdout=log, stderr=log, check=False).returncode:
                    (place / "failed").touch()
                    raise Failed(f"systemctl start {unit} failed with status 1")
            return
        # A unit that leaves starts again when it is gone.
        while not (place / "running").exists() and self._is_alive(unit):
            time.sleep(0.001)
        (place / "running").touch()
        if unit.endswith(".socket") or self._is_alive(unit):
            return
        arguments = [self.layout.slot(slot), self.layout.socket(slot), self.layout.configuration / slot]
        # The process alone keeps this lock, and so says that it lives, whoever its parent is.
        with (place / "alive").open("w") as alive, (place / "log").open("a") as log:
            fcntl.flock(alive, fcntl.LOCK_EX)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SERVER, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[alive.fileno()],
                start_new_session=True,
            )
            (place / "pid").write_text(str(process.pid))

    def _stop(self, unit: str) -> None:
        (self._place(unit) / "running").unlink(missing_ok=True)
        self._signal(unit, signal.SIGTERM)

    def _reload(self, unit: str) -> None:
        slot = unit.partition("@")[2].partition(".")[0]
        settings = (self.layout.configuration / slot / "gunicorn.conf.py").read_text()
        if "broken" in settings:
            (self._place(self.layout.unit(slot, "check.service")) / "log").write_text(f"NameError: {settings}\n")
            raise Failed(f"systemctl reload {unit} failed with status 1")
        self._signal(unit, signal.SIGHUP)

    def _enable(self, unit: str) -> None:
        (self._place(unit) / "enabled").touch()

    def _disable(self, unit: str) -> None:
        (self._place(unit) / "enabled").unlink(missing_ok=True)

    def _kill(self, unit: str) -> None:
        self._signal(unit, signal.SIGQUIT)

    def kill(self, unit: str) -> None:
        """What no unit asks for."""
        self._signal(unit, signal.SIGKILL)
        while self._is_alive(unit):
            time.sleep(0.001)

    def _signal(self, unit: str, number: int) -> None:
        if self._is_alive(unit):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((self._place(unit) / "pid").read_text()), number)

    def _is_alive(self, unit: str) -> bool:
        try:
            with (self._place(unit) / "alive").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _restarts(self, unit: str) -> int:
        path = self._place(unit) / "restarts"
        return int(path.read_text()) if path.exists() else 0

    def _text(self, unit: str) -> str:
        path = self.layout.units / unit
        return path.read_text() if path.exists() else ""

    def _loaded(self, unit: str) -> str:
        path = self._place(unit) / "loaded"
        if not path.exists():
            path.write_text(self._text(unit))
        return path.read_text()

    def _place(self, unit: str) -> Path:
        path = self.directory / unit
        if not path.exists():
            path.mkdir(parents=True)
        return path


class Host:
    """A host with one app, and the module's states as they are asked for one call after the other."""

    def __init__(self, root: Path, me: dict[str, str], port: int, told: Path) -> None:
        self.layout = Layout("shop", root)
        self.systemd = StandIn(self.layout, root / "systemd")
        self.front = Front(me["owner"], port)
        self.me = me
        self.watch = 0.0
        self.told = told
        self.front_is(up=True)
        (root / "run" / "slipway").mkdir(parents=True)

    def front_is(self, up: bool) -> None:
        self.told.write_text(str(self.layout.live) if up else "")

    @property
    def slots(self) -> Slots:
        return Slots(self.layout, self.systemd, self.front, self.watch)

    def release(self, identity: str, behaviour: str = "good") -> str:
        """Put a complete release on the host."""
        path = self.layout.release(identity)
        path.mkdir(parents=True)
        (path / "behaviour").write_text(behaviour)
        (path / "complete").touch()
        return identity

    def files(self, changed: dict[str, str] | None = None) -> list[File]:
        """The configuration of a slot."""
        texts = {
            "gunicorn.conf.py": "workers = 2",
            "environment": 'A="1"\n',
            "secrets/key": "old",
            "service": "[Service]\nExecReload=x\n",
            "socket": "[Socket]\n",
            "check.service": "[Service]\n",
            **(changed or {}),
        }
        return [File(path, text.encode(), 0o600 if "/" in path else 0o644, **self.me) for path, text in texts.items()]

    def do(self, state: str, release: str, changed: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """One call of the module."""
        slots = self.slots
        with locked(self.layout, seconds=0):
            found = STATES[state](self.app(release, changed, **options), slots, False)
            return {**found, **summary(slots)}

    def app(self, release: str, changed: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """The app as the modules take it."""
        files = [
            {"path": file.path, "content": file.content.decode(), "mode": f"{file.mode:o}", **self.me}
            for file in self.files(changed)
        ]
        return {
            "name": "shop",
            "release": release,
            "domains": [DOMAIN],
            "ready_path": "/ready",
            "ready_seconds": 5,
            "keep_releases": 5,
            "files": files,
            "secrets": {},
            "secret_environment": {},
            "data": False,
            **options,
        }

    def work(self, release: str, changed: dict[str, str] | None = None) -> Work:
        """What there would be to do."""
        units = [self.layout.unit(slot, kind) for slot in SLOTS for kind in ("service", "socket")]
        wanted = {file.path: Fingerprint.of(file) for file in self.files(changed)}
        return self.slots.work(release, wanted, self.systemd.show(*units))

    def ask(self) -> tuple[int, str | None, str]:
        """What a client gets over the live link: status, release and the settings that are in force."""
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.layout.live / "socket"))
        with contextlib.closing(connection):
            connection.request("GET", "/ready", headers={"Host": DOMAIN, "X-Forwarded-Proto": "https"})
            answer = connection.getresponse()
            return answer.status, answer.headers["X-Slipway-Release"], answer.read().decode()

    def links(self) -> dict[str, str]:
        """Where every link of the app points to."""
        directories = (self.layout.home, self.layout.configuration)
        return {str(path): os.readlink(path) for top in directories for path in top.rglob("*") if path.is_symlink()}

    def runs(self, slot: str) -> bool:
        return self.systemd.is_running(self.layout.unit(slot))


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of the front, and the file that names the live link."""
    directory = tmp_path_factory.mktemp("front")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "front.pem").write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    command = [sys.executable, "-I", "-S", "-c", FRONT, str(directory / "front.pem"), str(directory / "told")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline()), directory / "told"
        process.terminate()


@pytest.fixture
def host(
    tmp_path: Path, me: dict[str, str], front: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.005)
    host = Host(tmp_path, me, *front)
    yield host
    host.systemd.end()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


class TestSwitch:
    def test_a_first_release_goes_live(self, host: Host) -> None:
        result = host.do("live", host.release("r1"))
        assert result["changed"] is True
        assert result["reasons"] == ["nothing is live yet"]
        assert (result["slot"], result["release"], result["previous"]) == ("blue", "r1", None)
        assert list(result["timings"]) == ["stage", "probe", "switch", "verify"]
        assert host.ask() == (200, "r1", "workers = 2")
        assert os.readlink(host.layout.live) == "slots/blue"
        assert (host.layout.live / "release").resolve() == host.layout.release("r1")
        assert os.readlink(host.layout.live / "socket") == str(host.layout.socket("blue"))
        assert (host.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'
        assert (host.layout.units / "slipway-shop@blue.service").read_text() == "[Service]\nExecReload=x\n"
        assert not (host.layout.units / "slipway-shop@green.service").exists()
        states = host.systemd.show("slipway-shop@blue.socket", "slipway-shop@blue.service")
        assert [unit["UnitFileState"] for unit in states.values()] == ["enabled", "disabled"]

    def test_the_next_release_takes_the_other_slot(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        result = host.do("live", host.release("r2"))
        assert result["reasons"] == ["release r1 is live"]
        assert (result["slot"], result["release"], result["previous"]) == ("green", "r2", "r1")
        assert host.ask() == (200, "r2", "workers = 2")
        assert not host.runs("blue")
        assert host.layout.previous.resolve() == host.layout.release("r1")
        # Told to stop only once the other one had the traffic, and not waited for.
        assert host.systemd.calls[-1] == "stop --no-block slipway-shop@blue.service"

    def test_the_same_again_is_nothing_to_do(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        before, links = len(host.systemd.calls), host.links()
        result = host.do("live", "r2")
        assert (result["changed"], result["reasons"], result["removed"]) == (False, [], [])
        assert host.systemd.calls[before:] == []
        assert host.links() == links
        assert host.work("r2").reasons == []

    def test_a_slot_that_still_drains_is_stopped_where_it_is_needed(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        host.systemd.call("start", "slipway-shop@blue.service")
        assert host.do("live", host.release("r3"))["slot"] == "blue"
        assert host.ask()[1] == "r3"

    def test_a_changed_environment_goes_by_a_switch_of_the_same_release(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        result = host.do("live", "r1", {"environment": 'A="2"\n'})
        assert result["reasons"] == ["environment differs"]
        assert (result["slot"], result["release"]) == ("green", "r1")
        assert (host.layout.configuration / "green" / "environment").read_text() == 'A="2"\n'
        assert (host.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'

    def test_secrets_are_for_root_alone(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        secrets = host.layout.configuration / "blue" / "secrets"
        assert secrets.stat().st_mode & 0o777 == 0o700
        assert (secrets / "key").stat().st_mode & 0o777 == 0o600

    def test_a_release_that_is_not_built_is_refused(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        (host.layout.release("r2") / "src").mkdir(parents=True)
        with pytest.raises(Failed, match="release r2 is not built on this host; state: present builds it"):
            host.do("live", "r2")
        assert host.ask()[1] == "r1"

    def test_a_release_that_is_built_is_not_built_again(self, host: Host) -> None:
        assert host.do("present", host.release("r1"))["changed"] is False

    def test_old_releases_and_configurations_go(self, host: Host) -> None:
        for number in range(1, 6):
            result = host.do("live", host.release(f"r{number}"), {"environment": f"A={number}\n"}, keep_releases=3)
        assert result["removed"] == ["r2"]
        assert sorted(os.listdir(host.layout.releases)) == ["r3", "r4", "r5"]
        assert sorted(os.listdir(host.layout.configuration / "generations")) == ["3", "4", "5"]


class TestRefused:
    @pytest.mark.parametrize(
        ("behaviour", "seconds", "reason"),
        [
            (
                "crashes",
                5,
                "the app stops by itself.*\n.*slipway-shop@green.service:\nImportError: no module named shop",
            ),
            ("unready", 0.2, "/ready was not answered well within 0.2 seconds: status 503: the database is away"),
            ("stranger", 0.2, "release another answered in place of r2"),
            ("fades 2", 0.2, "status 503: the database is away"),
        ],
    )
    def test_what_served_never_notices(self, host: Host, behaviour: str, seconds: float, reason: str) -> None:
        host.do("live", host.release("r1"))
        live = host.links()[str(host.layout.live)]
        with pytest.raises(Failed, match=f"(?s)release r2 is refused; what served still does: .*{reason}"):
            host.do("live", host.release("r2", behaviour), {"environment": "A=2\n"}, ready_seconds=seconds)
        assert host.links()[str(host.layout.live)] == live
        assert host.ask() == (200, "r1", "workers = 2")
        assert host.runs("blue") and not host.runs("green")
        assert (host.layout.live / "../blue").resolve() == host.layout.slot("blue")
        assert (host.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'
        # Kept for a look, and in nobody's way.
        assert host.layout.is_complete("r2")
        assert host.do("live", host.release("r3"))["release"] == "r3"

    def test_units_that_systemd_does_not_accept_are_not_used_by_the_next_run_either(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.release("r2")
        for _ in range(2):
            with pytest.raises(Failed, match=r"slipway-shop@green\.service: Unknown key"):
                host.do("live", "r2", {"service": "[Service]\nUnknown=yes\n"})
            assert host.ask()[1] == "r1"
            assert not host.runs("green")
        assert host.do("live", "r2")["slot"] == "green"

    def test_a_first_release_that_is_refused_leaves_nothing_live(self, host: Host) -> None:
        with pytest.raises(Failed, match="release r1 is refused"):
            host.do("live", host.release("r1", "crashes"))
        assert host.layout.live_slot() is None
        assert host.do("live", host.release("r2"))["slot"] == "blue"

    def test_pages_of_the_release_before_still_find_its_assets(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        with pytest.raises(Failed, match="release r3 is refused"):
            host.do("live", host.release("r3", "crashes"))
        assert host.layout.previous.resolve() == host.layout.release("r1")


class TestUnits:
    """When systemd is told of what."""

    @pytest.fixture
    def live(self, host: Host) -> Host:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        host.systemd.calls.clear()
        return host

    def test_units_that_are_as_wanted_are_left_alone(self, live: Host) -> None:
        live.do("live", live.release("r3"))
        assert live.systemd.calls == [
            "start slipway-shop@blue.socket",
            "start slipway-shop@blue.service",
            "stop --no-block slipway-shop@green.service",
        ]

    def test_changed_ones_are_verified_and_read_again_before_they_are_used(self, live: Host) -> None:
        live.do("live", live.release("r3"), {"service": "[Service]\nNice=5\n", "socket": "[Socket]\nBacklog=9\n"})
        assert live.systemd.calls == [
            "verify slipway-shop@blue.service slipway-shop@blue.socket slipway-shop-check@blue.service",
            "daemon-reload",
            # A socket takes up its unit only when it listens anew.
            "stop slipway-shop@blue.socket",
            "start slipway-shop@blue.socket",
            "start slipway-shop@blue.service",
            "stop --no-block slipway-shop@green.service",
        ]

    def test_a_run_that_was_cut_off_before_systemd_read_them_is_made_up_for(self, live: Host) -> None:
        changed = {"service": "[Service]\nNice=5\n"}
        (live.layout.units / "slipway-shop@blue.service").write_text(changed["service"])
        live.do("live", live.release("r3"), changed)
        assert live.systemd.calls[0] == "daemon-reload"

    def test_a_socket_that_no_boot_would_start_is_enabled(self, live: Host) -> None:
        (live.systemd.directory / "slipway-shop@blue.socket" / "enabled").unlink()
        live.do("live", live.release("r3"))
        assert live.systemd.calls[:2] == ["enable slipway-shop@blue.socket", "start slipway-shop@blue.socket"]


class TestTakenBack:
    def test_a_release_that_fails_behind_the_front(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.release("r2", f"fades {module.GOOD_ANSWERS + 1}")
        with pytest.raises(Failed) as failed:
            host.do("live", "r2")
        for part in (
            "release r2 was taken back after the switch, release r1 is live again",
            ": status 503: the database is away\n",
            "The last lines of slipway-shop@green.service:",
        ):
            assert part in str(failed.value)
        assert host.ask()[1] == "r1"
        assert host.runs("blue") and not host.runs("green")
        assert host.layout.release_before() is None
        assert host.work("r1").reasons == []

    def test_a_release_that_dies_of_its_first_visitors(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.release("r2", f"dies {module.GOOD_ANSWERS + 1}")
        with pytest.raises(
            Failed, match=r"(?s)release r1 is live again: the app stops by itself\n.*ValueError: visitor"
        ):
            host.do("live", "r2")
        assert host.ask()[1] == "r1"
        assert not host.runs("green")

    def test_a_release_is_watched_for_a_while(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.watch = 5
        # Two of its answers a look: it is fine at first, and not for long.
        host.release("r2", f"fades {module.GOOD_ANSWERS + 6}")
        with pytest.raises(Failed, match=r"release r1 is live again: as .*: status 503: the database is away"):
            host.do("live", "r2")
        assert host.ask()[1] == "r1"

    def test_one_bad_answer_is_none(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.release("r2", f"stumbles {module.GOOD_ANSWERS + 1}")
        assert host.do("live", "r2")["release"] == "r2"

    def test_a_front_that_does_not_pass_requests_on(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.front_is(up=False)
        with pytest.raises(
            Failed, match="release r1 is live again: over HTTPS through the front: status 502: bad gatew"
        ):
            host.do("live", host.release("r2"))
        host.front_is(up=True)
        assert host.do("live", "r2")["release"] == "r2"

    def test_a_first_release(self, host: Host) -> None:
        host.front_is(up=False)
        with pytest.raises(Failed, match="nothing is live: over HTTPS"):
            host.do("live", host.release("r1"))
        assert host.layout.live_slot() is None
        assert not host.runs("blue")

    def test_a_user_of_the_front_who_may_not_open_the_socket(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.front = Front("slipway-nobody", host.front.port)
        with pytest.raises(Failed, match="this host has no user slipway-nobody, as whom the front would connect"):
            host.do("live", host.release("r2"))
        assert host.ask()[1] == "r1"


class TestLock:
    def test_a_second_deploy_is_refused_while_one_is_at_work(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        with locked(host.layout):
            with pytest.raises(Failed, match="another deploy of shop is at work on this host; try again later"):
                host.do("live", host.release("r2"))
            assert host.ask()[1] == "r1"
        assert host.do("live", "r2")["release"] == "r2"

    def test_it_waits_a_while_for_the_other_one(self, host: Host) -> None:
        script = (
            "import fcntl, sys; h = open(sys.argv[1], 'w'); fcntl.flock(h, 2); print('locked', flush=True); input()"
        )
        host.layout.home.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", "-c", script, str(host.layout.home / "lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout and other.stdin and other.stdout.readline() == "locked\n"
            with pytest.raises(Failed), locked(host.layout, seconds=0.02):
                pytest.fail("both are at work")
            # However it ends.
            other.kill()
            with locked(host.layout, seconds=5):
                pass

    def test_only_root_can_hold_it(self, host: Host) -> None:
        host.layout.home.mkdir(parents=True)
        (host.layout.home / "lock").touch(0o644)
        with locked(host.layout):
            assert (host.layout.home / "lock").stat().st_mode & 0o777 == 0o600

    def test_another_app_is_not_kept_out(self, host: Host) -> None:
        with locked(host.layout), locked(Layout("blog", host.layout.root), seconds=0):
            pass


class TestWork:
    """Each kind of difference, with its reason, and the run that puts it right."""

    @pytest.fixture
    def live(self, host: Host) -> Host:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        assert host.work("r2") == Work()
        return host

    def test_nothing_is_live(self, host: Host) -> None:
        assert host.work("r1") == Work(switch=["nothing is live yet"])

    @pytest.mark.parametrize("path", ["environment", "secrets/key", "service", "socket", "check.service"])
    def test_a_changed_file_needs_a_switch(self, live: Host, path: str) -> None:
        assert live.work("r2", {path: "[Unit]\n"}) == Work(switch=[f"{path} differs"])

    def test_changed_settings_need_a_reload(self, live: Host) -> None:
        assert live.work("r2", {"gunicorn.conf.py": "workers = 4"}) == Work(reload=["gunicorn.conf.py differs"])

    def test_a_file_more_or_less_needs_a_switch(self, live: Host) -> None:
        assert live.work("r2", {"migrate": "x"}) == Work(switch=["migrate differs"])
        (live.layout.configuration / "green" / "foreign").touch()
        assert live.work("r2") == Work(switch=["foreign differs"])

    def test_an_edited_unit_is_found_and_put_right(self, live: Host) -> None:
        (live.layout.units / "slipway-shop@green.service").write_text("[Service]\nRestart=no\n")
        assert live.work("r2") == Work(switch=["service differs"])
        assert live.do("live", "r2")["slot"] == "blue"
        assert live.work("r2") == Work()

    def test_an_edited_configuration_is_found_and_put_right(self, live: Host) -> None:
        (live.layout.configuration / "green" / "environment").write_text("A=3\n")
        assert live.work("r2") == Work(switch=["environment differs"])
        assert live.do("live", "r2")["slot"] == "blue"
        assert (live.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'

    @pytest.mark.parametrize("kind", ["service", "socket"])
    def test_a_stopped_unit_needs_a_switch(self, live: Host, kind: str) -> None:
        live.systemd.call("stop", f"slipway-shop@green.{kind}")
        assert live.work("r2") == Work(switch=[f"slipway-shop@green.{kind} is inactive"])
        assert live.do("live", "r2")["slot"] == "blue"
        assert live.ask()[1] == "r2"

    def test_a_slot_that_still_runs_is_tidied(self, live: Host) -> None:
        live.systemd.call("start", "slipway-shop@blue.service")
        assert live.work("r2") == Work(tidy=["slipway-shop@blue.service still runs"])
        assert live.do("live", "r2")["reasons"] == ["slipway-shop@blue.service still runs"]
        assert not live.runs("blue")
        assert live.ask()[1] == "r2"
        assert live.work("r2") == Work()

    def test_a_socket_that_no_boot_would_start_is_tidied(self, live: Host) -> None:
        (live.systemd.directory / "slipway-shop@blue.socket" / "enabled").unlink()
        assert live.work("r2") == Work(tidy=["slipway-shop@blue.socket is not enabled"])
        live.do("live", "r2")
        assert live.work("r2") == Work()

    def test_all_differences_are_named(self, live: Host) -> None:
        live.systemd.call("start", "slipway-shop@blue.service")
        work = live.work("r3", {"gunicorn.conf.py": "workers = 4", "environment": "A=2\n"})
        assert work.reasons == [
            "release r2 is live",
            "environment differs",
            "gunicorn.conf.py differs",
            "slipway-shop@blue.service still runs",
        ]


GARBAGE = [b"", b"{", b"\xff\xfe", b"5", b"[1]", b'{"a": 1}', b'[{"release": 5, "configuration": "1"}]']


class TestBroken:
    """What somebody has broken, whatever it was: the next run says so and puts it right, and one more has no work."""

    @pytest.fixture
    def live(self, host: Host) -> Host:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        return host

    @staticmethod
    def breaks(path: Path, how: str) -> None:
        """Break a link."""
        path.unlink()
        if how == "a directory":
            path.mkdir()
            (path / "of the user").touch()
        elif how == "a file":
            path.touch()
        elif how != "missing":
            path.symlink_to(how)

    @staticmethod
    def holds(host: Host) -> None:
        """Insist that the next run serves what was served, and that there is nothing left to do."""
        host.do("live", "r2")
        assert host.ask()[1] == "r2"
        assert host.work("r2") == Work()
        assert host.do("live", "r2")["changed"] is False
        assert host.do("live", host.release("r3"))["release"] == "r3"

    @pytest.mark.parametrize("how", ["missing", "slots/red", "nonsense", "/slots/green", "a file", "a directory"])
    def test_the_link_live_is_put_back_and_the_app_runs_on(self, live: Host, how: str) -> None:
        pid = (live.systemd.directory / "slipway-shop@green.service" / "pid").read_text()
        self.breaks(live.layout.live, how)
        assert live.work("r2") == Work(switch=["nothing is live yet"])
        live.do("live", "r2")
        assert os.readlink(live.layout.live) == "slots/green"
        assert live.ask()[1] == "r2"
        assert (live.systemd.directory / "slipway-shop@green.service" / "pid").read_text() == pid
        assert live.work("r2") == Work()
        kept = list(live.layout.home.glob("live.*/of the user"))
        assert len(kept) == (how == "a directory")

    def test_a_lost_link_live_is_put_back_before_a_build(self, live: Host) -> None:
        live.layout.live.unlink()
        with pytest.raises(KeyError):
            live.do("present", "r3")
        assert live.ask()[1] == "r2"

    def test_a_lost_link_live_after_a_lost_history_is_a_first_release(self, live: Host) -> None:
        live.layout.live.unlink()
        live.layout.history.unlink()
        self.holds(live)

    @pytest.mark.parametrize("how", ["missing", "../../releases", "r2", "/elsewhere/r2", "a file", "a directory"])
    def test_a_slots_link_to_its_release(self, live: Host, how: str) -> None:
        self.breaks(live.layout.slot("green") / "release", how)
        assert live.work("r2").switch == ["the link of slot green to its release is lost"]
        self.holds(live)

    @pytest.mark.parametrize("how", ["missing", "/run/nobody.sock", "a file", "a directory"])
    def test_a_slots_link_to_its_socket(self, live: Host, how: str) -> None:
        self.breaks(live.layout.slot("green") / "socket", how)
        assert live.work("r2").switch == ["the link of slot green to its socket is lost"]
        self.holds(live)

    @pytest.mark.parametrize("how", ["missing", "generations/99", "a file", "a directory"])
    def test_a_slots_link_to_its_configuration(self, live: Host, how: str) -> None:
        self.breaks(live.layout.configuration / "green", how)
        assert "environment differs" in live.work("r2").switch
        with pytest.raises(Failed, match="the configuration of slot green is lost; playbooks/deploy"):
            live.do("reloaded", "r2", {"gunicorn.conf.py": "workers = 4"})
        self.holds(live)

    @pytest.mark.parametrize("how", ["nonsense", "releases/r9", "slots/blue"])
    def test_the_link_previous(self, live: Host, how: str) -> None:
        self.breaks(live.layout.previous, how)
        assert live.work("r2") == Work(tidy=["the link previous names no release"])
        live.do("live", "r2")
        assert live.layout.release_before() == "r1"
        assert live.work("r2") == Work()

    def test_the_release_before_is_gone(self, live: Host) -> None:
        shutil.rmtree(live.layout.release("r1"))
        self.holds(live)

    @pytest.mark.parametrize("text", GARBAGE)
    def test_the_history(self, live: Host, text: bytes) -> None:
        live.layout.history.write_bytes(text)
        with pytest.raises(Failed, match="there is nothing to go back to"):
            live.do("previous", "")
        assert live.do("live", "r2")["changed"] is False
        assert release_info.describe(live.layout)["previous"] is None
        live.do("live", live.release("r3"))
        assert live.do("previous", "")["release"] == "r2"

    @pytest.mark.parametrize("text", GARBAGE)
    def test_the_note_of_a_switch(self, live: Host, text: bytes) -> None:
        live.layout.switching.write_bytes(text)
        assert live.work("r2") == Work(tidy=["a switch was not finished"])
        self.holds(live)

    @pytest.mark.parametrize("text", GARBAGE)
    def test_a_marker_whose_words_nobody_needs(self, live: Host, text: bytes) -> None:
        (live.layout.release("r2") / "complete").write_bytes(text)
        assert live.work("r2") == Work()
        assert {"r1", "r2"} <= {found["id"] for found in release_info.describe(live.layout)["releases"]}

    def test_a_release_that_has_lost_files_is_not_gone_back_to(self, live: Host) -> None:
        (live.layout.release("r1") / "manifest").write_text('{"src/main.py": 7}')
        with pytest.raises(
            Failed, match=r"release r1 cannot be gone back to: src/main\.py is gone; a deploy of its ver"
        ):
            live.do("previous", "")
        assert live.ask()[1] == "r2"


class TestReload:
    def test_the_live_slot_takes_up_its_settings(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        pid = (host.systemd.directory / "slipway-shop@blue.service" / "pid").read_text()
        result = host.do("reloaded", "r1", {"gunicorn.conf.py": "workers = 4"})
        assert (result["slot"], result["release"]) == ("blue", "r1")
        assert list(result["timings"]) == ["reload"]
        assert host.ask() == (200, "r1", "workers = 4")
        assert (host.systemd.directory / "slipway-shop@blue.service" / "pid").read_text() == pid
        assert host.work("r1", {"gunicorn.conf.py": "workers = 4"}) == Work()
        assert os.listdir(host.layout.configuration / "generations") == ["2"]

    def test_it_leaves_all_else_to_a_switch(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        changed = {"gunicorn.conf.py": "workers = 4", "environment": "A=2\n"}
        host.do("reloaded", "r1", changed)
        assert (host.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'
        assert host.work("r1", changed) == Work(switch=["environment differs"])

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [("broken", "NameError: broken"), ("unready", "was not answered well within 0.2 seconds: status 503")],
        ids=["by the check before the SIGHUP", "by the probe after it"],
    )
    def test_a_refused_reload_leaves_the_app_as_it_was(self, host: Host, settings: str, reason: str) -> None:
        host.do("live", host.release("r1"))
        links = host.links()
        with pytest.raises(Failed, match=f"(?s)the reload is refused and the app serves on as before: .*{reason}"):
            host.do("reloaded", "r1", {"gunicorn.conf.py": settings}, ready_seconds=0.2)
        assert host.links() == links
        assert host.ask() == (200, "r1", "workers = 2")
        assert host.work("r1") == Work()

    def test_a_server_that_knows_no_reload_is_started_anew_by_a_switch(self, host: Host) -> None:
        knows_none = {"service": "[Service]\n"}
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"), knows_none)
        before = host.links()
        result = host.do("reloaded", "r2", {**knows_none, "environment": 'A="2"\n'})
        assert (result["slot"], result["release"], result["previous"]) == ("blue", "r2", "r1")
        assert host.ask() == (200, "r2", "workers = 2")
        assert host.links() != before
        assert (host.layout.configuration / "blue" / "environment").read_text() == 'A="1"\n'
        # It is no step of the history, over which a rollback would have to go.
        assert host.do("previous", "")["release"] == "r1"

    def test_killed_at_any_change_of_such_a_switch_the_same_again_finishes(
        self, host: Host, killed_at: Callable[[int, Callable[[], object]], bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: None)
        knows_none = {"service": "[Service]\n"}
        for release in ("r1", "r2"):
            host.do("live", host.release(release), knows_none)
        for number in itertools.count(1):
            killed = killed_at(number, lambda: host.do("reloaded", "r2", knows_none))
            assert host.ask() == (200, "r2", "workers = 2")
            if killed:
                host.do("reloaded", "r2", knows_none)
            assert host.ask() == (200, "r2", "workers = 2")
            assert host.work("r2", knows_none) == Work()
            assert [entry.release for entry in host.slots.history.entries()] == ["r1", "r2"]
            if not killed:
                break
        assert number > 15

    def test_it_finishes_a_rollback_that_was_cut_off(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        knows_none = {"service": "[Service]\n"}
        for release in ("r1", "r2", "r3"):
            host.do("live", host.release(release), knows_none)
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                host.do("previous", "")
        host.do("reloaded", "r3", knows_none)
        assert host.ask()[1] == "r2"
        # Not what the rollback went away from.
        assert host.do("previous", "")["release"] == "r1"

    def test_nothing_is_live(self, host: Host) -> None:
        with pytest.raises(Failed, match="nothing is live, so there is nothing to reload"):
            host.do("reloaded", host.release("r1"))

    def test_one_that_was_cut_off_is_done_again_or_taken_back_whole(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut_off() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(host.systemd, "call", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    host.do("reloaded", "r1", {"gunicorn.conf.py": "workers = 4"})

        host.do("live", host.release("r1"))
        cut_off()
        assert host.ask()[2] == "workers = 2"
        # The files are as wanted, the process is not.
        assert host.work("r1", {"gunicorn.conf.py": "workers = 4"}) == Work(reload=["a reload was cut off"])
        with pytest.raises(Failed, match="the reload is refused"):
            host.do("reloaded", "r1", {"gunicorn.conf.py": "broken"})
        assert (host.layout.configuration / "blue" / "gunicorn.conf.py").read_text() == "workers = 2"
        cut_off()
        host.do("reloaded", "r1", {"gunicorn.conf.py": "workers = 4"})
        assert host.ask()[2] == "workers = 4"
        assert host.work("r1", {"gunicorn.conf.py": "workers = 4"}) == Work()
        # A switch settles it as well.
        cut_off()
        host.do("live", host.release("r2"), {"gunicorn.conf.py": "workers = 4"})
        assert host.work("r2", {"gunicorn.conf.py": "workers = 4"}) == Work()


MIGRATE = {"migrate": "echo migrating", "migrate.service": "[Service]\n"}


class TestMigrate:
    def test_runs_with_the_new_release_before_any_traffic(self, host: Host, tmp_path: Path) -> None:
        host.do("live", host.release("r1"))
        seen = tmp_path / "seen"
        script = f"readlink {host.layout.home}/live {host.layout.slot('green')}/release > {seen}"
        host.do("migrated", host.release("r2"), {**MIGRATE, "migrate": script})
        assert seen.read_text().split() == ["slots/blue", "../../releases/r2"]
        assert host.ask()[1] == "r1"
        assert host.do("live", "r2", {**MIGRATE, "migrate": script})["slot"] == "green"

    def test_a_failure_stops_the_release_with_its_last_lines(self, host: Host) -> None:
        host.do("live", host.release("r1"), MIGRATE)
        with pytest.raises(Failed, match=r"(?s)the migration failed, so the release does not go live.*no such table"):
            host.do("migrated", host.release("r2"), {**MIGRATE, "migrate": "echo no such table; false"})
        assert host.ask()[1] == "r1"
        assert not host.runs("green")


class TestRollback:
    def test_goes_back_to_the_release_and_its_configuration_with_the_secrets_of_today(self, host: Host) -> None:
        host.do("live", host.release("r1"), {"environment": "A=1\n"})
        host.do("live", host.release("r2"), {"environment": "A=2\n", "secrets/key": "new"})
        result = host.do("previous", "")
        assert (result["release"], result["previous"]) == ("r1", "r2")
        assert host.ask()[1] == "r1"
        configuration = host.layout.configuration / result["slot"]
        assert (configuration / "environment").read_text() == "A=1\n"
        assert (configuration / "secrets" / "key").read_text() == "new"

    def test_goes_further_back_each_time(self, host: Host) -> None:
        for number in (1, 2, 3):
            host.do("live", host.release(f"r{number}"), {"environment": f"A={number}\n"})
        for release in ("r2", "r1"):
            assert host.do("previous", "")["release"] == release
        with pytest.raises(Failed, match="there is nothing to go back to"):
            host.do("previous", "")

    def test_goes_back_through_what_was_live_more_than_once(self, host: Host) -> None:
        for release in ("r1", "r2"):
            host.release(release)
        for release in ("r1", "r2", "r1", "r2"):
            host.do("live", release)
        assert [host.do("previous", "")["release"] for _ in range(3)] == ["r1", "r2", "r1"]

    def test_a_configuration_alone_can_be_gone_back_to(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", "r1", {"environment": "A=2\n"})
        result = host.do("previous", "")
        assert (host.layout.configuration / result["slot"] / "environment").read_text() == 'A="1"\n'

    def test_a_reload_is_no_release_to_go_back_to(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        host.do("reloaded", "r2", {"gunicorn.conf.py": "workers = 4"})
        assert host.do("previous", "")["release"] == "r1"

    def test_one_that_is_refused_leaves_what_is_live(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        (host.layout.release("r1") / "behaviour").write_text("crashes")
        with pytest.raises(Failed, match="release r1 is refused"):
            host.do("previous", "")
        assert host.ask()[1] == "r2"

    def test_the_next_deploy_brings_what_is_wanted_again(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"))
        host.do("previous", "")
        assert host.do("live", "r2")["release"] == "r2"
        assert host.do("previous", "")["release"] == "r1"

    def test_goes_back_to_a_release_by_its_id(self, host: Host) -> None:
        for release in ("r1", "r2", "r3"):
            host.do("live", host.release(release))
        assert host.do("previous", "r1")["release"] == "r1"
        with pytest.raises(Failed, match=r"release r9 was never live on this host, or it is gone"):
            host.do("previous", "r9")

    @pytest.mark.parametrize(
        ("service", "told"),
        [
            ("[Service]\nExecReload=x\n", ["kill --signal=SIGQUIT slipway-shop@blue.service"]),
            # To a server that is not gunicorn, it is no word, but the end of all that it answers.
            ("[Service]\n", []),
        ],
    )
    def test_is_in_a_hurry(self, host: Host, service: str, told: list[str]) -> None:
        host.do("live", host.release("r1"), {"service": service})
        host.do("live", host.release("r2"))
        # What was live before still drains.
        host.systemd.call("start", "slipway-shop@blue.service")
        host.systemd.calls.clear()
        host.do("previous", "")
        assert host.systemd.calls[: len(told) + 1] == [*told, "stop slipway-shop@blue.service"]

    def test_what_it_goes_back_to_is_kept(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"), keep_releases=1)
        with pytest.raises(Failed, match="release r3 is refused"):
            host.do("live", host.release("r3", "crashes"), keep_releases=1)
        host.do("live", "r2", keep_releases=1)
        assert host.do("previous", "", keep_releases=1)["release"] == "r1"

    def test_killed_at_any_change_the_same_again_goes_back_once(
        self, host: Host, killed_at: Callable[[int, Callable[[], object]], bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: None)
        for release in ("r1", "r2", "r3"):
            host.release(release)
        for number in itertools.count(1):
            for release in ("r1", "r2", "r3"):
                host.do("live", release)
            killed = killed_at(number, lambda: host.do("previous", ""))
            assert host.ask()[1] in ("r2", "r3")
            if killed:
                host.do("previous", "")
            assert host.ask()[1] == "r2"
            assert host.work("r2") == Work()
            assert host.do("previous", "")["release"] == "r1"
            if not killed:
                break
        assert number > 15


class TestHooks:
    @staticmethod
    def hooks(tmp_path: Path, command: str = "") -> dict[str, str]:
        said = tmp_path / "said"
        return {
            **{f"{hook}.service": "[Service]\n" for hook in ("after_switch", "after_rollback")},
            **{hook: command or f"echo {hook} >> {said}" for hook in ("after_switch", "after_rollback")},
        }

    def test_run_once_the_release_has_the_traffic(self, host: Host, tmp_path: Path) -> None:
        hooks = self.hooks(tmp_path)
        assert "after_switch" in host.do("live", host.release("r1"), hooks)["timings"]
        host.do("live", host.release("r2"), hooks)
        host.do("live", "r2", hooks)
        assert "after_rollback" in host.do("previous", "")["timings"]
        assert (tmp_path / "said").read_text().split() == ["after_switch", "after_switch", "after_rollback"]

    def test_one_that_fails_is_said_and_tried_again(self, host: Host, tmp_path: Path) -> None:
        hooks = self.hooks(tmp_path, f"test -e {tmp_path}/cache || {{ echo no cache; exit 1; }}")
        for _ in range(2):
            with pytest.raises(Failed, match=r"release r1 is live, but after_switch failed; .*:\nno cache"):
                host.do("live", host.release("r1") if not host.layout.is_complete("r1") else "r1", hooks)
            assert host.ask()[1] == "r1"
        assert host.work("r1", hooks) == Work(tidy=["a switch was not finished"])
        (tmp_path / "cache").touch()
        host.do("live", "r1", hooks)
        assert host.work("r1", hooks) == Work()

    def test_one_that_fails_does_not_stop_the_next_deploy(self, host: Host, tmp_path: Path) -> None:
        with pytest.raises(Failed, match="after_switch failed"):
            host.do("live", host.release("r1"), self.hooks(tmp_path, "exit 1"))
        host.do("live", host.release("r2"))
        assert host.work("r2") == Work()

    def test_units_of_hooks_that_are_no_longer_wanted_go(self, host: Host, tmp_path: Path) -> None:
        host.do("live", host.release("r1"), self.hooks(tmp_path))
        for release in ("r2", "r3"):
            host.do("live", host.release(release))
        assert not list(host.layout.units.glob("*after*"))


class TestAbsent:
    @pytest.mark.parametrize("name", ["", ".", "..", "../..", "shop/..", "Shop"])
    def test_only_ever_takes_away_one_app(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(Failed, match="is not the name of an app"):
            Layout(name, tmp_path)

    def test_nothing_is_left_but_the_data(self, host: Host) -> None:
        host.layout.state.mkdir(parents=True)
        for release in ("r1", "r2"):
            host.do("live", host.release(release))
        assert host.slots.is_there(data=False)
        host.slots.remove(data=False)
        assert not host.runs("blue") and not host.runs("green")
        assert not list(host.layout.units.iterdir())
        assert not host.layout.home.exists() and not host.layout.configuration.exists()
        assert host.layout.state.is_dir()
        assert not host.slots.is_there(data=False) and host.slots.is_there(data=True)

    def test_the_data_too_where_that_is_said(self, host: Host) -> None:
        host.layout.state.mkdir(parents=True)
        host.do("live", host.release("r1"))
        host.slots.remove(data=True)
        assert not host.layout.state.exists()

    def test_no_unit_that_is_gone_has_failed(self, host: Host) -> None:
        with pytest.raises(Failed, match="the migration failed"):
            host.do("migrated", host.release("r1"), {**MIGRATE, "migrate": "false"})
        unit = "slipway-shop-migrate@blue.service"
        assert host.slots.systemd.show(unit)[unit]["ActiveState"] == "failed"
        host.slots.remove(data=True)
        assert host.slots.systemd.show(unit)[unit]["ActiveState"] == "inactive"

    def test_another_app_of_a_similar_name_stays(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        other = host.layout.units / "slipway-shop-2@blue.service"
        other.write_text("[Service]\n")
        host.slots.remove(data=False)
        assert [path.name for path in host.layout.units.iterdir()] == [other.name]

    def test_killed_at_any_change_the_same_again_finishes(
        self, host: Host, killed_at: Callable[[int, Callable[[], object]], bool]
    ) -> None:
        for number in itertools.count(1):
            host.do("live", host.release("r1"))
            killed = killed_at(number, lambda: host.slots.remove(data=False))
            with locked(host.layout):
                host.slots.remove(data=False)
            assert not host.slots.is_there(data=False)
            if not killed:
                break
        assert number > 5


class TestReleaseInfo:
    def test_what_is_live_what_was_before_and_what_else_there_is(self, host: Host) -> None:
        for number, release in enumerate(("r1", "r2", "r3")):
            host.release(release)
            marker = host.layout.release(release) / "complete"
            marker.write_text(json.dumps({"commit": release, "python": "x"}))
            os.utime(marker, (number, number))
        assert release_info.describe(host.layout)["release"] is None
        for release in ("r1", "r2"):
            host.do("live", release)
        (layout,) = layouts(host.layout.root)
        found = release_info.describe(layout)
        assert (found["name"], found["slot"], found["release"], found["previous"]) == ("shop", "green", "r2", "r1")
        assert abs(found["since"] - time.time()) < 60
        assert [entry["id"] for entry in found["releases"]] == ["r3", "r2", "r1"]
        assert found["releases"][0] == {"id": "r3", "built": 2, "commit": "r3", "python": "x"}

    def test_what_the_inventory_does_not_have(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        assert release_plan.orphans(["blog"], host.layout.root) == ["shop"]
        assert release_plan.orphans(["blog", "shop"], host.layout.root) == []


class TestCheckMode:
    """Nothing changes, and what is said is true."""

    @staticmethod
    def check(host: Host, state: str, release: str, changed: dict[str, str] | None = None) -> dict[str, Any]:
        def there() -> list[Path]:
            return sorted(path for place in ("srv", "etc", "run") for path in (host.layout.root / place).rglob("*"))

        before = there()
        found = STATES[state](host.app(release, changed), host.slots, True)
        assert there() == before
        return found

    def test_live(self, host: Host) -> None:
        assert self.check(host, "present", "r1") == {"changed": True}
        assert self.check(host, "live", "r1")["reasons"] == ["nothing is live yet"]
        host.do("live", host.release("r1"))
        assert self.check(host, "live", "r1") == {"changed": False, "reasons": [], "removed": [], "diff": []}
        found = self.check(host, "live", "r1", {"environment": 'A="2"\n', "secrets/key": "new"})
        assert [entry["after"] for entry in found["diff"]] == ["release: r1\nslot: green\n", 'A="2"\n']

    def test_previous(self, host: Host) -> None:
        with pytest.raises(Failed, match="there is nothing to go back to"):
            self.check(host, "previous", "")
        host.do("live", host.release("r1"))
        host.do("live", host.release("r2"), {"environment": 'A="2"\n', "secrets/key": "new"})
        found = self.check(host, "previous", "")
        assert [entry["after"] for entry in found["diff"]] == ["release: r1\nslot: blue\n", 'A="1"\n']

    def test_absent(self, host: Host) -> None:
        assert self.check(host, "absent", "") == {"changed": False, "diff": []}
        host.do("live", host.release("r1"))
        found = self.check(host, "absent", "")
        assert found["changed"] is True
        assert found["diff"][0]["after"] == "release: None\nslot: None\n"


class TestCutOff:
    @pytest.fixture
    def cut_off(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Deploy a release, and be cut off when it has the traffic and is not verified yet."""

        def run(release: str) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(Slots, "confirm", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    host.do("live", host.release(release))

        return run

    def test_before_the_switch_only_the_idle_slot_has_changed(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.slots.start_and_probe(host.slots.stage(host.release("r2"), host.files()), "r2", PROBE)
        assert host.ask()[1] == "r1"
        # The operator thinks better of it. That the front is away is no reason to take away what is live.
        host.front_is(up=False)
        assert host.work("r1") == Work(tidy=["slipway-shop@green.service still runs"])
        host.do("live", "r1")
        assert host.ask()[1] == "r1"
        assert not host.runs("green")

    def test_after_the_switch_the_next_run_verifies_and_retires(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.slots.start_and_probe(host.slots.stage(host.release("r2"), host.files()), "r2", PROBE)
        host.slots.switch("green", "r2")
        assert host.runs("blue")
        host.do("live", "r2")
        assert not host.runs("blue")
        assert host.work("r2") == Work()

    def test_after_the_switch_the_next_run_takes_back_what_is_not_right(
        self, host: Host, cut_off: Callable[[str], None]
    ) -> None:
        host.do("live", host.release("r1"))
        cut_off("r2")
        assert host.ask()[1] == "r2"
        host.front_is(up=False)
        with pytest.raises(Failed, match="release r2 was taken back after the switch, release r1 is live again"):
            host.do("live", "r2")
        assert host.ask()[1] == "r1"
        assert host.work("r1") == Work()

    def test_a_first_release_that_was_cut_off_is_verified_too(self, host: Host, cut_off: Callable[[str], None]) -> None:
        cut_off("r1")
        host.front_is(up=False)
        with pytest.raises(Failed, match="release r1 was taken back after the switch, nothing is live"):
            host.do("live", "r1")
        assert host.layout.live_slot() is None

    def test_what_was_cut_off_is_taken_back_before_another_release_takes_its_slot(
        self, host: Host, cut_off: Callable[[str], None]
    ) -> None:
        host.do("live", host.release("r1"))
        cut_off("r2")
        (host.layout.release("r2") / "behaviour").write_text("unready")
        host.systemd.kill("slipway-shop@green.service")
        with pytest.raises(Failed, match="release r3 is refused"):
            host.do("live", host.release("r3", "crashes"))
        assert host.ask()[1] == "r1"

    def test_a_rollback_after_one_that_was_cut_off_and_is_not_right(
        self, host: Host, cut_off: Callable[[str], None]
    ) -> None:
        for release in ("r0", "r1"):
            host.do("live", host.release(release))
        cut_off("r2")
        (host.layout.release("r2") / "behaviour").write_text("unready")
        host.systemd.kill(f"slipway-shop@{host.layout.live_slot()}.service")
        assert host.do("previous", "")["release"] == "r1"

    def test_a_release_whose_deploy_was_cut_off_can_be_gone_back_to(
        self, host: Host, cut_off: Callable[[str], None]
    ) -> None:
        host.do("live", host.release("r1"))
        cut_off("r2")
        host.do("live", host.release("r3"))
        assert host.do("previous", "")["release"] == "r2"

    def test_killed_at_any_change_one_complete_release_is_live_and_the_next_run_finishes(
        self, host: Host, killed_at: Callable[[int, Callable[[], object]], bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A killed process loses nothing that it has written; waiting for the disk is for power cuts.
        monkeypatch.setattr(os, "fsync", lambda _: None)
        configurations = {"r1": {"environment": "A=r1\n"}, "r2": {"environment": "A=r2\n"}}
        for release in configurations:
            host.release(release)
        host.do("live", "r2", configurations["r2"])
        for number in itertools.count(1):
            old, new = ("r2", "r1") if number % 2 else ("r1", "r2")
            assert host.ask()[1] == old
            killed = killed_at(number, lambda new=new: host.do("live", new, configurations[new]))  # type: ignore[misc]
            status, live, _ = host.ask()
            assert (status, live) in ((200, old), (200, new))
            configuration = host.layout.configuration / str(host.layout.live_slot())
            assert (configuration / "environment").read_text() == f"A={live}\n"
            assert host.layout.release_in(str(host.layout.live_slot())) == live
            host.do("live", new, configurations[new])
            assert host.ask()[1] == new
            assert not host.runs(host.slots.idle())
            assert host.work(new, configurations[new]) == Work()
            if not killed:
                break
        assert number > 15


class TestPlan:
    """What release_plan makes of it, which decides the tasks that run."""

    @staticmethod
    def plan(host: Host, release: str, changed: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """The plan without what is the same in all of these."""
        units = [host.layout.unit(slot, kind) for slot in SLOTS for kind in ("service", "socket")]
        app = {**host.app(release, changed), "source": {"digest": "x", "path": None}, "migrate": False, **options}
        found = release_plan.plan(app, {}, release, host.slots, host.systemd.show(*units))
        assert (found.pop("name"), found.pop("release"), found.pop("source")) == ("shop", release, {"digest": "x"})
        return found

    def test_a_first_release(self, host: Host) -> None:
        assert self.plan(host, "r1", migrate=True) == {
            "slot": "blue",
            "live": None,
            "live_slot": None,
            "build": True,
            "migrate": True,
            "switch": ["nothing is live yet"],
            "reload": [],
            "tidy": [],
        }

    def test_nothing_to_do(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        assert self.plan(host, "r1", migrate=True) == {
            "slot": "blue",
            "live": "r1",
            "live_slot": "blue",
            "build": False,
            "migrate": False,
            "switch": [],
            "reload": [],
            "tidy": [],
        }

    def test_a_release_that_is_there_is_not_built(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        assert self.plan(host, "r2", migrate=True)["build"] is True
        found = self.plan(host, host.release("r2"), migrate=True)
        assert (found["slot"], found["build"], found["migrate"]) == ("green", False, True)
        assert found["switch"] == ["release r1 is live"]

    @pytest.mark.parametrize(
        ("text", "damage"),
        [
            ('{"behaviour": 5}', "behaviour is not as it was built"),
            ('{"behaviour": 4, "src/main.py": 7}', "src/main.py is gone"),
            ("garbage", "manifest cannot be read"),
            ("[5]", "manifest cannot be read"),
        ],
    )
    def test_a_live_release_that_is_damaged_is_built_anew(self, host: Host, text: str, damage: str) -> None:
        host.do("live", host.release("r1"))
        manifest = host.layout.release("r1") / "manifest"
        manifest.write_text('{"behaviour": 4}')
        assert self.plan(host, "r1")["switch"] == []
        manifest.write_text(text)
        found = self.plan(host, "r1", migrate=True)
        assert (found["switch"], found["build"]) == ([f"release r1 is damaged: {damage}"], True)
        assert (found["slot"], found["migrate"]) == ("green", False)

    def test_what_was_damaged_and_put_aside_is_not_the_release_before(self, host: Host) -> None:
        for release in ("r1", "r2"):
            host.do("live", host.release(release))
        layout = host.layout
        layout.release("r2").rename(layout.release(".r2.1"))
        live = layout.live_slot()
        assert live
        (layout.slot(live) / "release").unlink()
        (layout.slot(live) / "release").symlink_to("../../releases/.r2.1")
        host.do("live", host.release("r2"))
        assert (layout.release_in(layout.live_slot() or ""), layout.release_before()) == ("r2", "r1")

    def test_a_live_release_without_its_marker_is_built_anew(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        (host.layout.release("r1") / "complete").unlink()
        found = self.plan(host, "r1")
        assert (found["switch"], found["build"]) == (["release r1 is damaged: complete is gone"], True)

    def test_a_switch_of_the_same_release_migrates_nothing(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        found = self.plan(host, "r1", {"environment": "A=2\n", "gunicorn.conf.py": "workers = 4"}, migrate=True)
        assert (found["switch"], found["migrate"], found["build"]) == (["environment differs"], False, False)
        assert found["reload"] == [], "a switch takes up the settings as well"

    def test_a_changed_migration_runs(self, host: Host) -> None:
        host.do("live", host.release("r1"), MIGRATE)
        changed = {**MIGRATE, "migrate": "echo migrating once more"}
        assert self.plan(host, "r1", changed, migrate=True)["migrate"] is True
        assert self.plan(host, "r1", {**MIGRATE, "environment": "A=2"}, migrate=True)["migrate"] is False

    def test_a_reload(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        found = self.plan(host, "r1", {"gunicorn.conf.py": "workers = 4"})
        assert (found["switch"], found["reload"], found["slot"]) == ([], ["gunicorn.conf.py differs"], "blue")

    def test_an_owner_that_a_bare_host_does_not_have_yet(self, host: Host) -> None:
        host.do("live", host.release("r1"))
        host.me = {**host.me, "owner": "slipway-nobody"}
        assert "slipway-nobody" in self.plan(host, "r1")["switch"][0]

    def test_the_diff_shows_release_slot_and_configuration(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(release_plan, "Layout", lambda _: host.layout)
        host.do("live", host.release("r1"))
        app = {**host.app("r2", {"environment": "A=2\n"}), "source": {}, "migrate": False}
        app["files"] = [file for file in app["files"] if not file["path"].startswith("secrets/")]
        found = {"switch": ["x"], "reload": [], "live": "r1", "live_slot": "blue", "release": "r2", "slot": "green"}
        shown = release_plan.differences(app, found)
        assert [(entry["before_header"], entry["before"], entry["after"]) for entry in shown] == [
            ("shop: release and slot", "release: r1\nslot: blue\n", "release: r2\nslot: green\n"),
            ("shop: environment", 'A="1"\n', "A=2\n"),
        ]
        assert release_plan.differences(app, {**found, "switch": []}) == []

    @pytest.mark.usefixtures("sandboxed")
    def test_what_a_host_cannot_tell_is_its_answer(self) -> None:
        source = {"git": "file:///nowhere", "version": "v1"}
        answer = release_plan.identify({"gunicorn": ""}, {**APP, "source": source}, {})
        assert isinstance(answer, Failed)
        assert "source.git: reading file:///nowhere failed" in str(answer)

    @pytest.mark.usefixtures("sandboxed")
    def test_a_version_is_pinned_to_its_commit(self, tmp_path: Path) -> None:
        for arguments in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=x"]):
            git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments]
            subprocess.run(git, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
        source = {"git": f"file://{tmp_path}", "version": "HEAD"}
        identity = release_plan.identify({"gunicorn": ""}, {**APP, "source": source}, {})
        assert (len(source["version"]), source["called"]) == (40, "HEAD")
        assert release_plan.identify({"gunicorn": ""}, {**APP, "source": source}, {}) == identity


APP: dict[str, Any] = {"name": "shop", "python": "system", "build": "", "unlocked": False, "index": None}
APP |= {"server": "gunicorn", "extras": [], "groups": [], "packages": []}


class TestModules:
    """The modules as Ansible runs them, on the host that is a directory."""

    @pytest.fixture(autouse=True)
    def _here(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        for one in (release_module, release_plan):
            monkeypatch.setattr(one, "Layout", lambda _: host.layout)
            monkeypatch.setattr(one, "Systemd", lambda: host.systemd)

    @staticmethod
    def run(main: Callable[[], None], arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    @staticmethod
    def app(host: Host, release: str) -> dict[str, Any]:
        files = [{"path": file.path, "content": file.content.decode()} for file in host.files()]
        return {"name": "shop", "release": release, "source": {"digest": "x"}, "domains": [DOMAIN], "files": files}

    def test_release(self, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = {
            "app": {**self.app(host, host.release("r1")), "ready_path": "/ready"},
            "secrets": {"token": "canary"},
            "secret_environment": {"URL": "canary $x"},
            "front": {"user": host.front.user, "port": host.front.port},
        }
        check = self.run(release_module.main, {**arguments, "_ansible_check_mode": True}, capsys)
        assert (check["changed"], check["release"]) == (True, None)
        assert host.layout.live_slot() is None
        first = self.run(release_module.main, arguments, capsys)
        assert (first["changed"], first["release"], first["slot"], first["previous"]) == (True, "r1", "blue", None)
        assert first["reasons"] == ["nothing is live yet"]
        assert "canary" not in json.dumps(first)
        secrets = host.layout.configuration / "blue" / "secrets"
        assert (secrets / "token").read_text() == "canary"
        assert (secrets / "URL.env").read_text() == 'URL="canary \\$x"\n'
        assert (secrets / "URL.env").stat().st_mode & 0o777 == 0o600
        arguments["app"] = {**self.app(host, host.release("r2", "crashes")), "ready_path": "/ready"}
        second = self.run(release_module.main, arguments, capsys)
        assert second["failed"] is True
        assert second["msg"].startswith("shop: release r2 is refused; what served still does: ")
        assert (second["release"], second["slot"]) == ("r1", "blue")
        assert "probe" in second["timings"]

    def test_a_disk_that_is_full_is_said_with_what_is_live(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = {
            "app": {**self.app(host, host.release("r1")), "ready_path": "/ready"},
            "front": {"user": host.front.user, "port": host.front.port},
        }
        self.run(release_module.main, arguments, capsys)
        arguments["app"] = {**self.app(host, host.release("r2")), "ready_path": "/ready"}
        with small_files(30):
            found = self.run(release_module.main, arguments, capsys)
        assert found["failed"] is True
        assert f"shop: [Errno 27] File too large: '{host.layout.switching}'; release r1 is live, and" in found["msg"]
        assert host.ask()[1] == "r1"
        assert not host.runs("green")
        assert not list(host.layout.root.rglob(".staging-*"))
        assert self.run(release_module.main, arguments, capsys)["release"] == "r2"

    def test_release_plan(self, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
        app = self.app(host, "")
        found = self.run(release_plan.main, {"apps": [app], "sets": {"gunicorn": "a set"}}, capsys)
        (plan,) = found["plans"]
        assert found["changed"] is True
        assert (plan["name"], plan["switch"], plan["build"]) == ("shop", ["nothing is live yet"], True)
        assert len(plan["release"]) == 12
        assert found["diff"][0]["after"] == f"release: {plan['release']}\nslot: blue\n"
        assert self.run(release_plan.main, {"apps": [], "sets": {}}, capsys)["changed"] is False

    def test_release_plan_names_all_that_a_host_cannot_have(
        self, host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        apps = [
            {**self.app(host, ""), "python": "3.99", "sandbox": {"writable": [str(tmp_path), "/srv/nowhere"]}},
            {**self.app(host, ""), "name": "blog", "source": {"git": "file:///nowhere", "version": "v1"}},
        ]
        found = self.run(release_plan.main, {"apps": apps, "sets": {"gunicorn": ""}}, capsys)
        assert found["failed"] is True
        for part in (
            "Nothing that serves was changed.",
            'shop: python is "3.99"',
            "blog: source.git: reading file:///nowh",
            "shop: sandbox.writable has /srv/nowhere: there is no such directory on this host; make it, and let",
        ):
            assert part in found["msg"]
        assert f"sandbox.writable has {tmp_path}" not in found["msg"]
        # A first run with --check is on a host that has no Python of uv's yet.
        arguments = {"apps": apps, "sets": {"gunicorn": ""}, "_ansible_check_mode": True}
        check = self.run(release_plan.main, arguments, capsys)
        assert [plan["release"] for plan in check["plans"]] == ["unknown", "unknown"]
        assert check["changed"] is True


class TestAsk:
    def test_nobody_listens(self, tmp_path: Path) -> None:
        assert module.ask_socket(tmp_path / "nobody", PROBE, "r1") == "no answer: [Errno 2] No such file or directory"

    def test_as_a_user_it_says_so(self, tmp_path: Path, me: dict[str, str]) -> None:
        problem = module.ask_as(me["owner"], tmp_path / "nobody", PROBE, "r1")
        assert problem == f"as {me['owner']}: no answer: [Errno 2] No such file or directory"

    def test_as_another_user_it_has_that_users_rights(self, tmp_path: Path) -> None:
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        is_root = os.geteuid() == 0
        problem = module.ask_as("nobody" if is_root else "root", private / "app.sock", PROBE, "r1")
        # Who is not root cannot become another user, and does not ask with rights that prove nothing.
        allowed = "no answer: [Errno 13] Permission denied" if is_root else "the question could not be asked"
        assert problem.endswith(f": {allowed}")

    def test_one_that_listens_and_says_nothing(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as front:
            listener.bind(str(tmp_path / "mute"))
            listener.listen()
            impatient = dataclasses.replace(PROBE, patience=0.05)
            assert module.ask_socket(tmp_path / "mute", impatient, "r1") == "no answer: timed out"
            port = front.getsockname()[1]
            assert "over HTTPS through the front: no answer: " in module.ask_front(port, impatient, "r1")

    def test_a_port_on_which_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert "over HTTPS through the front: no answer: " in module.ask_front(port, PROBE, "r1")

    def test_a_front_that_speaks_no_tls(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

            def answer() -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

            pool.submit(answer)
            assert "no answer: [SSL" in module.ask_front(listener.getsockname()[1], PROBE, "r1")
