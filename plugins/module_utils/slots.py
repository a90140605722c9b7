"""The way of a release on a host: stage, probe, switch, verify, retire.

What is on disk is the only state. The link ``live`` names the slot that gets the traffic, and it changes with one
rename. Everything before that rename touches the idle slot alone. What is left to do after it stands in the file
``switching``, written before the rename, so that the next run can do it. So whenever this is cut off, one complete
release is live with its own configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import shutil
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
from ansible_collections.slipway.asgi.plugins.module_utils.history import Entry, History
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd, lock, run
from ansible_collections.slipway.asgi.plugins.module_utils.probes import Probe, ask_as, ask_front, ask_socket

# What a SIGHUP takes up by itself; a change of anything else goes through the other slot.
RELOADABLE = {"gunicorn.conf.py"}
# The commands of an app that run in its sandbox, each by a unit of its own, where the app has them.
COMMANDS = ("migrate", "after_switch", "after_rollback")
# The files of a configuration that are installed as units, by their names there.
UNITS = ("service", "socket", "check.service", *(f"{command}.service" for command in COMMANDS))
# Good answers in a row that make an app ready, so that one lucky worker is not enough.
GOOD_ANSWERS = 3
# The directory of a configuration that only root may enter.
SECRETS = "secrets"
# Seconds: the pause between two probes, and how long another deploy may hold the lock before this one gives up.
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


@dataclasses.dataclass(frozen=True)
class Switch:
    """A switch that is under way, as the file ``switching`` holds it.

    Attributes:
        slot: the slot that it makes live.
        release: what that holds.
        before: the slot that was live, or None at a first release.
        assets: the release whose assets were served beside the live one's, to be restored if the switch is taken back.
        depth: for a rollback, how many entries of the history came before the one that it goes back to.
        verified: whether it answered behind the front, so that it stays live whatever comes.
    """

    slot: str
    release: str
    before: str | None
    assets: str | None
    depth: int | None
    verified: bool = False

    @property
    def hook(self) -> str:
        """The app's command that runs once the slot is live."""
        return "after_switch" if self.depth is None else "after_rollback"


class TakenBack(Failed):
    """A switch after which the app did not answer as it should; what was live before is live again.

    Attributes:
        release: what was taken back.
    """

    def __init__(self, message: str, release: str) -> None:
        super().__init__(message)
        self.release = release


def locked(layout: Layout, seconds: float = LOCK_SECONDS) -> contextlib.AbstractContextManager[None]:
    """Keep every other deploy of this app out, as :func:`lock` does."""
    busy = f"another deploy of {layout.name} is at work on this host; try again later"
    return lock(layout.home / "lock", seconds, busy)


class Slots:
    """The two slots of an app, and the transaction that moves the traffic between them.

    Args:
        layout: the app's paths.
        systemd: the service manager.
        front: what stands before the app.
        watch: for how many seconds a new release is watched once it has the traffic.

    Attributes:
        history: what was live.
        timings: how many seconds each step took.
        probed: what answered well, and to whom.
    """

    def __init__(self, layout: Layout, systemd: Systemd, front: Front = Front(), watch: float = WATCH_SECONDS) -> None:
        self.layout = layout
        self.systemd = systemd
        self.front = front
        self.watch = watch
        self.history = History(layout)
        self.timings: dict[str, float] = {}
        self.probed: list[str] = []

    def idle(self) -> str:
        """The slot that does not get the traffic."""
        return SLOTS[0] if self.layout.live_slot() != SLOTS[0] else SLOTS[1]

    def still(self) -> str:
        """What a release that is refused leaves, for an error."""
        return "what served still does" if self.layout.live_slot() else "nothing serves yet"

    def standing(self) -> str:
        """What is live when a run breaks off, for an error."""
        live = self.layout.live_slot()
        held = self.layout.release_in(live) if live else None
        return f"{f'release {held}' if held else 'nothing'} is live, and the same run again finishes what is left"

    def recover(self) -> None:
        """Put the link ``live`` back where it was lost: to the slot that still holds what was live last."""
        entries = self.history.entries()
        if self.layout.live_slot() or not entries:
            return
        for slot in SLOTS:
            if self.history.held_by(slot) == entries[-1]:
                point(self.layout.live, f"slots/{slot}")
                return

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
        held = self.layout.release_in(live)
        if held != release:
            switch.append(f"release {held} is live" if held else f"the link of slot {live} to its release is lost")
        elif damage := self.layout.damage(release):
            switch.append(f"release {release} is damaged: {damage}")
        if not self.layout.has_socket(live):
            switch.append(f"the link of slot {live} to its socket is lost")
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
        if self.layout.switching.exists():
            tidy.append("a switch was not finished")
        if self.layout.previous.is_symlink() and not self._has_assets():
            tidy.append("the link previous names no release")
        tidy += [
            f"{unit} is not enabled"
            for slot in SLOTS
            if self.layout.slot(slot).exists()
            and state[unit := self._unit(slot, "socket")]["UnitFileState"] != "enabled"
        ]
        return Work(switch, reload, tidy)

    def take_over(self, release: str, files: Sequence[File], probe: Probe, back_to: Entry | None = None) -> None:
        """The whole way of a release that is built: stage, probe, switch, verify, retire, and the app's hook.

        Args:
            release: its id.
            files: its configuration.
            probe: how it is asked whether it is ready.
            back_to: for a rollback, what it goes back to. That is in a hurry: a drain that still goes on in the slot
                is cut short, and a release that has served before is not watched.

        Raises:
            Failed: it is not live, and what was live before is; or it is, and its hook failed.
        """
        slot = self.stage(release, files, hurry=back_to is not None)
        try:
            self.start_and_probe(slot, release, probe)
            switch = self.switch(slot, release, back_to)
        except BaseException:
            if self.layout.live_slot() != slot:
                self._turn_off(slot)
            raise
        self.finish(self.confirm(switch, probe, 0 if back_to else self.watch))

    def stage(self, release: str, files: Sequence[File], hurry: bool = False) -> str:
        """Put a release and its configuration into the idle slot, and have its socket listen.

        Args:
            release: its id.
            files: its configuration.
            hurry: whether a drain that still goes on in that slot is cut short where its server can do that, and not
                waited for.

        Returns:
            The slot.

        Raises:
            Failed: systemd does not accept the units.
        """
        with self._timed("stage"):
            slot = self.idle()
            service = self._unit(slot, "service")
            if self.systemd.is_running(service):
                if hurry and self._knows_signals(slot):
                    # Its workers close their WebSockets now, and end what they answer; the master is stopping already.
                    with contextlib.suppress(Failed):
                        self.systemd.call("kill", "--signal=SIGQUIT", service)
                self.systemd.call("stop", service)
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
        for kind in UNITS:
            if (path := self.layout.units / self._unit(slot, kind)) not in units:
                path.unlink(missing_ok=True)
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
        """Run the app's migration with the release and the configuration of a slot.

        Raises:
            Failed: it ended with another status than 0.
        """
        self._command(slot, "migrate", f"the migration failed, so the release does not go live; {self.still()}")

    def _command(self, slot: str, command: str, failure: str) -> None:
        """Run one of the app's commands by its unit: in the app's own sandbox, with its environment and secrets."""
        unit = self._unit(slot, f"{command}.service")
        started = self.systemd.now()
        with self._timed(command):
            try:
                self.systemd.call("start", unit)
            except Failed as error:
                raise Failed(f"{failure}:\n{self.systemd.journal(unit, started)}") from error

    def start_and_probe(self, slot: str, release: str, probe: Probe) -> None:
        """Start the idle slot and wait until it answers well several times in a row.

        Raises:
            Failed: it crashed or never became ready. It is for the caller to stop it; its release is kept for a look.
        """
        service = self._unit(slot, "service")
        started = self.systemd.now()
        with self._timed("probe"):
            try:
                deadline = time.monotonic() + probe.seconds
                # It waits until the app has started or crashed: whoever asks all the time takes CPU from its start.
                self.systemd.start(service, probe.seconds)
                self._await(slot, release, probe, deadline)
            except Failed as error:
                raise Failed(
                    f"release {release} is refused; {self.still()}: {error}\n"
                    f"The last lines of {service}:\n{self.systemd.journal(service, started)}"
                ) from error

    def _await(self, slot: str, release: str, probe: Probe, deadline: float) -> None:
        service = self._unit(slot, "service")
        good = 0
        restarts = None
        while True:
            state = self.systemd.show(service)[service]
            if state["ActiveState"] == "failed" or restarts not in (None, state["NRestarts"]):
                raise Failed("the app stops by itself")
            restarts = state["NRestarts"]
            # Before, a question would wait in the socket, and the next crash with it.
            started = state["ActiveState"] == "active"
            seen = ask_socket(self.layout.socket(slot), probe, release) if started else "it has not started"
            good = good + 1 if not seen else 0
            if good == GOOD_ANSWERS:
                break
            if time.monotonic() > deadline:
                raise Failed(f"{probe.path} was not answered well within {probe.seconds:g} seconds: {seen}")
            time.sleep(PAUSE_SECONDS)
        self.probed.append(f"{probe.path} over {self.layout.socket(slot)}")

    def switch(self, slot: str, release: str, back_to: Entry | None = None) -> Switch:
        """Give a probed slot the traffic.

        Args:
            slot: the slot.
            release: what it holds.
            back_to: for a rollback, what it goes back to.

        Returns:
            What is under way now, for :meth:`confirm`.
        """
        before = self.layout.live_slot()
        leaving = self.layout.release_in(before) if before else None
        switch = Switch(
            slot=slot,
            release=release,
            before=before,
            assets=self.layout.release_before(),
            depth=self.history.depth(back_to) if back_to else None,
        )
        with self._timed("switch"):
            self._note(switch)
            # One that was damaged has been put aside, and goes.
            if leaving and leaving != release and not leaving.startswith("."):
                point(self.layout.previous, f"releases/{leaving}")
            point(self.layout.live, f"slots/{slot}")
        return switch

    def under_way(self) -> Switch | None:
        """The switch that a run which was cut off has left; one that never happened, or is garbage, is put aside."""
        try:
            switch = Switch(**json.loads(self.layout.switching.read_bytes()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError):
            self.layout.switching.unlink()
            return None
        if (self.layout.live_slot(), self.layout.release_in(switch.slot)) == (switch.slot, switch.release):
            return switch
        self._restore_assets(switch.assets)
        self.layout.switching.unlink()
        return None

    def settle(self, probe: Probe) -> Switch | None:
        """Verify a switch that was cut off before it was; the link ``live`` is put back first, should it be lost.

        Returns:
            It, for :meth:`finish`, or None where nothing was cut off.

        Raises:
            TakenBack: it does not answer as it should.
        """
        self.recover()
        switch = self.under_way()
        if switch is None or switch.verified:
            return switch
        return self.confirm(switch, probe, self.watch)

    def confirm(self, switch: Switch, probe: Probe, watch: float) -> Switch:
        """Look at the live slot as a client would; if it is not right, the one before it is live again.

        Args:
            switch: the switch that made it live.
            probe: how it is asked.
            watch: for how many seconds it is looked at.

        Returns:
            The switch, verified.

        Raises:
            TakenBack: it was not right.
        """
        started = self.systemd.now()
        try:
            with self._timed("verify"):
                self._verify(switch, dataclasses.replace(probe, patience=LOOK_SECONDS), watch)
        except Failed as error:
            self._take_back(switch)
            service = self._unit(switch.slot, "service")
            back = "nothing is live"
            if switch.before:
                back = f"release {self.layout.release_in(switch.before)} is live again"
            raise TakenBack(
                f"release {switch.release} was taken back after the switch, {back}: {error}\n"
                f"The last lines of {service}:\n{self.systemd.journal(service, started)}",
                switch.release,
            ) from error
        switch = dataclasses.replace(switch, verified=True)
        self._note(switch)
        return switch

    def _take_back(self, switch: Switch) -> None:
        if switch.before:
            point(self.layout.live, f"slots/{switch.before}")
            # It runs, unless the host was restarted in between.
            self.systemd.call("start", "--no-block", self._unit(switch.before, "service"))
        else:
            self.layout.live.unlink()
        self._restore_assets(switch.assets)
        self.layout.switching.unlink()
        self._turn_off(switch.slot)

    def _turn_off(self, slot: str) -> None:
        # With its socket: what waits there to be accepted would start it again.
        self.systemd.call("stop", self._unit(slot, "socket"), self._unit(slot, "service"))
        self.systemd.call("start", self._unit(slot, "socket"))

    def finish(self, switch: Switch) -> None:
        """Do what follows a verified switch: remember it, retire the slot before, run the app's hook.

        Raises:
            Failed: the hook failed; the release stays live, and the next run tries the hook again.
        """
        # The slot whose reload was cut off is no longer live.
        self.layout.reloading.unlink(missing_ok=True)
        if switch.depth is not None:
            self.history.cut(switch.depth)
        self.history.remember()
        self.retire(self.idle())
        if (self.layout.configuration / switch.slot / f"{switch.hook}.service").exists():
            failure = f"release {switch.release} is live, but {switch.hook} failed; the next run tries it again"
            self._command(switch.slot, switch.hook, failure)
        self.layout.switching.unlink()

    def tidy(self) -> None:
        """Finish what a run that was cut off had left: enable both sockets, stop the idle slot, run a hook."""
        with self._timed("tidy"):
            sockets = [self._unit(slot, "socket") for slot in SLOTS if self.layout.slot(slot).exists()]
            self.systemd.call("enable", *sockets)
            if not self._has_assets():
                back = self.history.before()
                self._restore_assets(back.release if back else None)
        if switch := self.under_way():
            self.finish(switch)
        else:
            self.retire(self.idle())

    def _note(self, switch: Switch) -> None:
        write(File("switching", json.dumps(dataclasses.asdict(switch)).encode()), self.layout.switching)

    def _has_assets(self) -> bool:
        return self.layout.is_complete(self.layout.release_before() or "")

    def _restore_assets(self, release: str | None) -> None:
        if release:
            point(self.layout.previous, f"releases/{release}")
        else:
            self.layout.previous.unlink(missing_ok=True)

    def _verify(self, switch: Switch, probe: Probe, watch: float) -> None:
        service = self._unit(switch.slot, "service")
        socket_path = self.layout.live / "socket"
        looks: tuple[Callable[[], str], ...] = (
            lambda: ask_as(self.front.user, socket_path, probe, switch.release),
            lambda: ask_front(self.front.port, probe, switch.release),
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
                self.probed += [f"{probe.path} as {self.front.user}", f"{probe.path} at https://{probe.host}"]
                return
            time.sleep(PAUSE_SECONDS)

    def retire(self, slot: str) -> None:
        """Tell a slot to stop, without waiting: it drains by itself."""
        service = self._unit(slot, "service")
        if self.systemd.is_running(service):
            self.systemd.call("stop", "--no-block", service)

    def can_reload(self) -> bool:
        """Whether the live slot's server takes its settings up by itself."""
        return self._knows_signals(self.layout.live_slot() or SLOTS[0])

    def _knows_signals(self, slot: str) -> bool:
        """Whether a slot's server is gunicorn, to whom SIGHUP and SIGQUIT are words: its unit says what a reload is."""
        service = self.layout.configuration / slot / "service"
        return not service.exists() or "\nExecReload=" in service.read_text()

    def renew(self, probe: Probe) -> None:
        """Start what is live anew in the other slot, as it is configured: a reload for a server that knows none.

        Args:
            probe: how the app is asked whether it is ready.

        Raises:
            Failed: as :meth:`take_over`.
        """
        # A rollback that was cut off forgets what it went away from, before another switch is noted in its place.
        if switch := self.under_way():
            self.finish(switch)
        live = self.layout.live_slot() or SLOTS[0]
        self.take_over(self.layout.release_in(live) or "", read_all(self.generations(live).link), probe)

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
            if generations.current() is None:
                raise Failed(f"the configuration of slot {slot} is lost; playbooks/deploy.yml puts that right")
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
                self._await(slot, self.layout.release_in(slot) or "", probe, time.monotonic() + probe.seconds)
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

    def recall(self, entry: Entry) -> list[File]:
        """The configuration of an entry of the history, with the secrets as they are now."""
        current = self.generations(self.layout.live_slot() or SLOTS[0]).current()
        secrets = {file.path: file for file in read_all(current) if _is_secret(file.path)} if current else {}
        return [secrets.get(file.path, file) for file in read_all(self.history.files_of(entry))]

    def held(self) -> set[str]:
        """The releases that have to stay: of both slots, of the assets, and what a rollback goes back to."""
        back = self.history.before()
        held = {self.layout.release_in(slot) for slot in SLOTS} | {self.layout.release_before(), back and back.release}
        return {release for release in held if release}

    def prune(self) -> None:
        """Remove the configurations that neither a slot nor the history has."""
        store = self.generations(SLOTS[0])
        held = [path for slot in SLOTS if (path := self.generations(slot).current())]
        store.prune([*held, *map(self.history.files_of, self.history.entries())])

    def remove(self, data: bool) -> None:
        """Take the app off the host; done again, this finishes what was cut off.

        Args:
            data: whether its data and its user go, too.
        """
        with self._timed("remove"):
            # Without the link, no boot starts it again.
            self.layout.live.unlink(missing_ok=True)
            units = self._installed()
            if units:
                self.systemd.call("disable", *[unit for unit in units if unit.endswith(".socket")])
                self.systemd.call("stop", *units)
                self.systemd.forget_failures(units)
                for unit in units:
                    (self.layout.units / unit).unlink()
                self.systemd.call("daemon-reload")
            if data and self._has_user():
                run(["userdel", self.layout.user])
            for path in self._places(data):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            # Last: the lock lies in it.
            shutil.rmtree(self.layout.home)

    def is_there(self, data: bool) -> bool:
        """Whether :meth:`remove` has anything to take away."""
        found = any(path.exists() for path in self._places(data))
        return found or bool(self._installed()) or (data and self._has_user())

    def _places(self, data: bool) -> list[Path]:
        layout = self.layout
        places = [*map(layout.socket, SLOTS), layout.history, layout.releases, layout.configuration, layout.cache]
        return [*places, layout.account, layout.state] if data else places

    def _installed(self) -> list[str]:
        units = [self._unit(slot, kind) for slot in SLOTS for kind in UNITS]
        return [unit for unit in units if (self.layout.units / unit).exists()]

    def _has_user(self) -> bool:
        try:
            pwd.getpwnam(self.layout.user)
        except KeyError:
            return False
        return True

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[step] = round(time.monotonic() - started, 3)


def summary(slots: Slots) -> dict[str, Any]:
    """What is live now, for a result."""
    live = slots.layout.live_slot()
    return {
        "slot": live,
        "release": slots.layout.release_in(live) if live else None,
        "previous": slots.layout.release_before(),
        "size": slots.layout.size(live) if live else None,
        "probed": slots.probed,
        "timings": slots.timings,
    }


def difference(slots: Slots, release: str | None, slot: str | None, files: Sequence[File]) -> list[dict[str, str]]:
    """The diff between what is live and a release with a configuration in a slot, without any secret.

    Args:
        slots: the app's slots.
        release: what will be live.
        slot: in which slot.
        files: with which configuration.

    Returns:
        An entry for release and slot and one for each file, of those that differ.
    """
    layout = slots.layout
    live = layout.live_slot()
    texts = slots.generations(live or SLOTS[0]).before() if live else {}
    old = {"release and slot": f"release: {layout.release_in(live or '')}\nslot: {live}\n", **texts}
    new = {
        "release and slot": f"release: {release}\nslot: {slot}\n",
        **{file.path: file.content.decode(errors="replace") for file in files},
    }
    entries = []
    for path in [path for path in new | old if not _is_secret(path)]:
        before, after = old.get(path, ""), new.get(path, "")
        if before != after:
            header = f"{layout.name}: {path}"
            entries.append({"before_header": header, "after_header": header, "before": before, "after": after})
    return entries


def _is_secret(path: str) -> bool:
    return path.startswith(f"{SECRETS}/")
