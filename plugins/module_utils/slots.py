"""The way of a release on a host: stage, probe, switch, verify, retire.

What is on disk is the only state. The link ``live`` names the slot that gets the traffic, and it changes with one
rename; everything before that rename touches the idle slot alone, everything after it can be done again by the next
run. So whenever this is cut off, one complete release is live with its own configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import http.client
import json
import os
import pwd
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.generations import (
    File,
    Fingerprint,
    Generations,
    lies_at,
    make_directory,
    point,
    read_all,
    write,
)
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd

# What a SIGHUP takes up by itself; a change of anything else goes through the other slot.
RELOADABLE = {"gunicorn.conf.py"}
# The files of a configuration that are installed as units, by their names there.
UNITS = ("service", "socket", "check.service", "migrate.service")
# Good answers in a row that make an app ready, so that one lucky worker is not enough.
GOOD_ANSWERS = 3
# The directory of a configuration that only root may enter.
SECRETS = "secrets"
# Where nginx answers this host, and no other, with what the live slot says of its readiness.
VERIFY_PATH = "/.slipway/ready"
RELEASE_HEADER = "X-Slipway-Release"
# Seconds: one probe, the pause between two, and how long another deploy may hold the lock before this one gives up.
PROBE_SECONDS = 5.0
PAUSE_SECONDS = 0.1
# Seconds for which a new release is watched once it has the traffic, and that one look may take then: an app that dies
# of its first visitors is found while the slot before still runs.
WATCH_SECONDS = 1.0
LOOK_SECONDS = 1.0
LOCK_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Front:
    """What stands before the app.

    Attributes:
        user: the user as whom it connects to sockets.
        port: the port on which it answers HTTPS on this host.
    """

    user: str = "www-data"
    port: int = 443


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


@dataclasses.dataclass(frozen=True)
class Work:
    """What there is to do, each with the reasons for it.

    Attributes:
        switch: why the other slot has to take over.
        reload: why the live slot has to take up its server's settings; a switch does that as well.
        tidy: what an earlier run did not get to.
    """

    switch: list[str] = dataclasses.field(default_factory=list)
    reload: list[str] = dataclasses.field(default_factory=list)
    tidy: list[str] = dataclasses.field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """All of them, for a reader."""
        return [*self.switch, *self.reload, *self.tidy]


@contextlib.contextmanager
def locked(layout: Layout, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep every other deploy of this app out; the kernel lets go of the lock when this process ends, however it ends.

    Raises:
        Failed: another deploy did not finish within ``seconds``.
    """
    make_directory(layout.home)
    with open(layout.home / "lock", "w", encoding="ascii") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed(f"another deploy of {layout.name} is at work on this host; try again later") from None
                time.sleep(PAUSE_SECONDS)
        yield


class Slots:
    """The two slots of an app, and the transaction that moves the traffic between them.

    Args:
        layout: the app's paths.
        systemd: the service manager.
        front: what stands before the app.
    """

    def __init__(self, layout: Layout, systemd: Systemd, front: Front = Front()) -> None:
        self.layout = layout
        self.systemd = systemd
        self.front = front
        self.timings: dict[str, float] = {}

    def idle(self) -> str:
        """The slot that does not get the traffic."""
        return SLOTS[0] if self.layout.live_slot() != SLOTS[0] else SLOTS[1]

    def generations(self, slot: str) -> Generations:
        """The configurations of this app, and the link to the one of a slot."""
        return Generations(self.layout.configuration / "generations", self.layout.configuration / slot)

    def differing(self, slot: str, wanted: Mapping[str, Fingerprint]) -> list[str]:
        """What of a slot's configuration is not as wanted, its installed units among it."""
        found = self.generations(slot).differing(wanted)
        units = [
            kind
            for kind in UNITS
            if kind in wanted and not wanted[kind].fits(self.layout.units / self._unit(slot, kind))
        ]
        return sorted({*found, *units})

    def _unit(self, slot: str, kind: str) -> str:
        return self.layout.unit(slot, kind)

    def work(self, release: str, wanted: Mapping[str, Fingerprint], state: Mapping[str, Mapping[str, str]]) -> Work:
        """What there is to do until a release serves with this configuration.

        Args:
            release: the id of the wanted release.
            wanted: the wanted configuration.
            state: what systemd says of the units of both slots, from :meth:`Systemd.show`.
        """
        live, idle = self.layout.live_slot(), self.idle()
        if live is None:
            return Work(switch=["nothing is live yet"])
        switch: list[str] = []
        reload: list[str] = []
        tidy: list[str] = []
        if self.layout.release_in(live) != release:
            switch.append(f"release {self.layout.release_in(live)} is live")
        for path in self.differing(live, wanted):
            (reload if path in RELOADABLE else switch).append(f"{path} differs")
        if self.layout.reloading.is_symlink():
            reload.append("a reload was cut off")
        for kind in ("service", "socket"):
            active = state[self._unit(live, kind)]["ActiveState"]
            if active not in ("active", "reloading"):
                switch.append(f"{self._unit(live, kind)} is {active}")
        if state[self._unit(idle, "service")]["ActiveState"] in ("active", "reloading", "activating"):
            tidy.append(f"{self._unit(idle, 'service')} still runs")
        tidy += [
            f"{unit} is not enabled"
            for slot in SLOTS
            if self.layout.slot(slot).exists()
            and state[unit := self._unit(slot, "socket")]["UnitFileState"] != "enabled"
        ]
        return Work(switch, reload, tidy)

    def tidy(self, probe: Probe) -> None:
        """Finish what a run that was cut off had left: verify a switch, stop the idle slot, enable both sockets.

        Raises:
            Failed: what is live does not answer as it should, and the slot before is live again.
        """
        # Before its switch, a run has only started the idle slot: then nothing new is live, and nothing to take back.
        if self.layout.previous_slot() == self.idle() and self.systemd.is_running(self._unit(self.idle(), "service")):
            self.confirm(self.layout.release_in(self.layout.live_slot() or "") or "", probe)
        self.retire(self.idle())
        sockets = [self._unit(slot, "socket") for slot in SLOTS if self.layout.slot(slot).exists()]
        self.systemd.call("enable", *sockets)

    def stage(self, release: str, files: Sequence[File]) -> str:
        """Put a release and its configuration into the idle slot, and have its socket listen.

        Returns:
            The slot.

        Raises:
            Failed: systemd does not accept the units.
        """
        with self._timed("stage"):
            slot = self.idle()
            service = self._unit(slot, "service")
            if self.systemd.is_running(service):
                # A drain that still goes on ends here: its slot is needed.
                self.systemd.call("stop", service)
            if self.layout.previous_slot() == slot:
                self.layout.previous.unlink()
            generations = self.generations(slot)
            if generations.differing({file.path: Fingerprint.of(file) for file in files}):
                generations.activate(generations.stage(files, private=[SECRETS]))
            home = self.layout.slot(slot)
            make_directory(home)
            point(home / "release", f"../../releases/{release}")
            point(home / "socket", str(self.layout.socket(slot)))
            self._install(slot, files)
            return slot

    def _install(self, slot: str, files: Sequence[File]) -> None:
        """Install the slot's units where they differ, and make sure of its socket."""
        units = {self.layout.units / self._unit(slot, file.path): file for file in files if file.path in UNITS}
        names = [path.name for path in units]
        changed = {path: file for path, file in units.items() if not lies_at(file, path)}
        for path, file in changed.items():
            write(dataclasses.replace(file, path=str(path)), path)
        if changed:
            try:
                self.systemd.verify(list(units))
            except Failed:
                # The next run must not find them in place and take them for verified.
                for path in changed:
                    path.unlink()
                raise
        if changed or any(unit["NeedDaemonReload"] == "yes" for unit in self.systemd.show(*names).values()):
            self.systemd.call("daemon-reload")
        socket_unit = self._unit(slot, "socket")
        state = self.systemd.show(socket_unit)[socket_unit]
        if self.layout.units / socket_unit in changed and state["ActiveState"] == "active":
            self.systemd.call("stop", socket_unit)
        if state["UnitFileState"] != "enabled":
            self.systemd.call("enable", socket_unit)
        self.systemd.call("start", socket_unit)

    def migrate(self, slot: str) -> None:
        """Run the app's migration with the release and the configuration of a slot, in the app's own sandbox."""
        unit = self._unit(slot, "migrate.service")
        started = self.systemd.now()
        with self._timed("migrate"):
            try:
                self.systemd.call("start", unit)
            except Failed as error:
                raise Failed(
                    "the migration failed, so the release does not go live; what served still does:\n"
                    f"{self.systemd.journal(unit, started)}"
                ) from error

    def start_and_probe(self, slot: str, release: str, probe: Probe) -> None:
        """Start the idle slot and wait until it answers well several times in a row.

        Raises:
            Failed: it crashed or never became ready; it is stopped again, and its release is kept for a look.
        """
        service = self._unit(slot, "service")
        started = self.systemd.now()
        with self._timed("probe"):
            try:
                self.systemd.call("start", "--no-block", service)
                self._await(slot, release, probe)
            except Failed as error:
                self.systemd.call("stop", service)
                raise Failed(
                    f"release {release} is refused and what served still does: {error}\n"
                    f"The last lines of {service}:\n{self.systemd.journal(service, started)}"
                ) from error

    def _await(self, slot: str, release: str, probe: Probe) -> None:
        service = self._unit(slot, "service")
        deadline = time.monotonic() + probe.seconds
        good = 0
        restarts = None
        while good < GOOD_ANSWERS:
            state = self.systemd.show(service)[service]
            if state["ActiveState"] == "failed" or restarts not in (None, state["NRestarts"]):
                raise Failed("the app stops by itself")
            restarts = state["NRestarts"]
            seen = ask_socket(self.layout.socket(slot), probe, release)
            good = good + 1 if not seen else 0
            if time.monotonic() > deadline:
                raise Failed(f"{probe.path} was not answered well within {probe.seconds:g} seconds: {seen}")
            time.sleep(PAUSE_SECONDS)

    def switch(self, slot: str, release: str, probe: Probe, watch: float = WATCH_SECONDS) -> None:
        """Give a probed slot the traffic, look at it as a client would, and take the traffic back if it is not right.

        Args:
            slot: the probed slot.
            release: what it holds.
            probe: how it is asked.
            watch: for how many seconds it is looked at.

        Raises:
            Failed: it did not answer behind the front; the slot that was live before is live again.
        """
        before = self.layout.live_slot()
        with self._timed("switch"):
            if before:
                point(self.layout.previous, f"slots/{before}")
            point(self.layout.live, f"slots/{slot}")
        self.confirm(release, probe, watch)
        # The slot whose reload was cut off is no longer live.
        self.layout.reloading.unlink(missing_ok=True)

    def confirm(self, release: str, probe: Probe, watch: float = WATCH_SECONDS) -> None:
        """Look at the live slot as a client would; if it is not right, the one before it is live again.

        Raises:
            Failed: it was not right.
        """
        slot, before = self.layout.live_slot() or "", self.layout.previous_slot()
        started = self.systemd.now()
        try:
            with self._timed("verify"):
                self._verify(slot, release, dataclasses.replace(probe, patience=LOOK_SECONDS), watch)
        except Failed as error:
            if before:
                point(self.layout.live, f"slots/{before}")
                self.layout.previous.unlink()
            else:
                self.layout.live.unlink()
            service = self._unit(slot, "service")
            self.systemd.call("stop", service)
            back = f"release {self.layout.release_in(before)} is live again" if before else "nothing is live"
            raise Failed(
                f"release {release} was taken back after the switch, {back}: {error}\n"
                f"The last lines of {service}:\n{self.systemd.journal(service, started)}"
            ) from error

    def _verify(self, slot: str, release: str, probe: Probe, watch: float) -> None:
        service = self._unit(slot, "service")
        socket_path = self.layout.live / "socket"
        looks: tuple[Callable[[], str], ...] = (
            lambda: ask_as(self.front.user, socket_path, probe, release),
            lambda: ask_front(self.front.port, probe, release),
        )
        restarts = self.systemd.show(service)[service]["NRestarts"]
        deadline = time.monotonic() + watch
        bad = 0
        while True:
            problem = next((problem for look in looks if (problem := look())), "")
            state = self.systemd.show(service)[service]
            if state["ActiveState"] != "active" or state["NRestarts"] != restarts:
                raise Failed("the app stops by itself")
            bad = bad + 1 if problem else 0
            if bad == GOOD_ANSWERS:
                raise Failed(problem)
            if not bad and time.monotonic() > deadline:
                return
            time.sleep(PAUSE_SECONDS)

    def retire(self, slot: str) -> None:
        """Tell a slot to stop, without waiting: it drains by itself."""
        service = self._unit(slot, "service")
        if self.systemd.is_running(service):
            self.systemd.call("stop", "--no-block", service)

    def reload(self, files: Sequence[File], probe: Probe) -> None:
        """Let the live slot take up a new gunicorn.conf.py by SIGHUP; refused, it keeps the one it has.

        Args:
            files: the wanted configuration, of which all else is left to a switch.
            probe: how the app is asked whether it is ready afterwards.

        Raises:
            Failed: nothing is live, the check before the SIGHUP refused it, or the app was not ready after it.
        """
        slot = self.layout.live_slot()
        if slot is None:
            raise Failed("nothing is live, so there is nothing to reload")
        service = self._unit(slot, "service")
        generations = self.generations(slot)
        started = self.systemd.now()
        with self._timed("reload"):
            # Until the server has taken it up, this names the configuration that it runs with.
            if not self.layout.reloading.is_symlink():
                point(self.layout.reloading, os.readlink(generations.link))
            settings = {file.path: file for file in files if file.path in RELOADABLE}
            whole = [settings.get(file.path, file) for file in read_all(generations.link)]
            if generations.differing({file.path: Fingerprint.of(file) for file in whole}):
                generations.activate(generations.stage(whole, private=[SECRETS]))
            taken_up = False
            try:
                self.systemd.call("reload", service)
                taken_up = True
                self._await(slot, self.layout.release_in(slot) or "", probe)
                self.layout.reloading.unlink()
            except Failed as error:
                point(generations.link, os.readlink(self.layout.reloading))
                if taken_up:
                    self.systemd.call("reload", service)
                self.layout.reloading.unlink()
                raise Failed(
                    f"the reload is refused and the app serves on as before: {error}\n"
                    f"{self.systemd.journal(self._unit(slot, 'check.service'), started)}"
                ) from error

    def remember(self, reloaded: bool = False) -> None:
        """Note what is live, with its configuration, so that it can be gone back to once it no longer is.

        Args:
            reloaded: the configuration is the same server's new one, which takes the place of the one before.
        """
        entry = self._now()
        if entry is None:
            return
        history = self.history()
        if reloaded and history and history[-1]["release"] == entry["release"]:
            history.pop()
        if not history or history[-1] != entry:
            self._write_history([*history, entry])

    def history(self) -> list[dict[str, str]]:
        """What was live, oldest first, each with its configuration, as far as both are still on the host."""
        try:
            entries: list[dict[str, str]] = json.loads(self.layout.history.read_text())
        except FileNotFoundError:
            return []
        store = self.generations(SLOTS[0]).store
        return [
            entry
            for entry in entries
            if self.layout.is_complete(entry["release"]) and (store / entry["configuration"]).is_dir()
        ]

    def forget(self, entry: Mapping[str, str]) -> None:
        """Drop an entry of the history and all that came after it: a rollback goes further back the next time."""
        history = self.history()
        # The same can have been live several times; it is the last time that was gone back to.
        while history and history.pop() != entry:
            pass
        self._write_history(history)

    def before(self) -> dict[str, str] | None:
        """The last entry of the history that is not what is live now, or None."""
        live = self.layout.live_slot()
        generation = self.generations(live).current() if live else None
        now = {
            "release": self.layout.release_in(live) if live else None,
            "configuration": generation and generation.name,
        }
        return next((entry for entry in reversed(self.history()) if entry != now), None)

    def recall(self, entry: Mapping[str, str]) -> list[File]:
        """The configuration of an entry of the history, with the secrets as they are now."""
        store = self.generations(SLOTS[0]).store
        current = self.generations(self.layout.live_slot() or SLOTS[0]).current()
        files = {file.path: file for file in read_all(store / entry["configuration"])}
        secrets = (
            {file.path: file for file in read_all(current) if file.path.startswith(f"{SECRETS}/")} if current else {}
        )
        return [secrets.get(path, file) for path, file in files.items()]

    def _now(self) -> dict[str, str] | None:
        """What is live, as an entry of the history."""
        live = self.layout.live_slot()
        generation = self.generations(live).current() if live else None
        release = self.layout.release_in(live) if live else None
        return {"release": release, "configuration": generation.name} if release and generation else None

    def _write_history(self, history: Sequence[Mapping[str, str]]) -> None:
        write(File("history", json.dumps(history).encode()), self.layout.history)

    def prune(self) -> None:
        """Remove the configurations that neither a slot nor the history has."""
        store = self.generations(SLOTS[0])
        held = [path for slot in SLOTS if (path := self.generations(slot).current())]
        store.prune([*held, *(store.store / entry["configuration"] for entry in self.history())])

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[step] = round(time.monotonic() - started, 3)


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


def summary(slots: Slots) -> dict[str, Any]:
    """What is live now, for a result."""
    live = slots.layout.live_slot()
    previous = slots.layout.previous_slot()
    return {
        "slot": live,
        "release": slots.layout.release_in(live) if live else None,
        "previous": slots.layout.release_in(previous) if previous else None,
    }
