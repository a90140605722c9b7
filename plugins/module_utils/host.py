"""Where Slipway keeps an app on a host, and the few commands by which it moves it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SLOTS = ("blue", "green")
# It becomes part of user, unit and path names, of which a user's may have 31 characters.
APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,22}")


class Failed(Exception):
    """A step that did not succeed; the message says which, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The paths and units of one app.

    Attributes:
        name: the app's name.
        root: the root of the file system, another directory in tests.

    Raises:
        Failed: no app can have this name.
    """

    name: str
    root: Path = Path("/")

    def __post_init__(self) -> None:
        # Whole directories are removed by paths with this name in them.
        if not APP_NAME.fullmatch(self.name):
            raise Failed(f'"{self.name}" is not the name of an app')

    @property
    def home(self) -> Path:
        """What the app is served from: releases, slots and the links that say which is live."""
        return self.root / "srv/slipway" / self.name

    @property
    def releases(self) -> Path:
        """The directory of releases, by id."""
        return self.home / "releases"

    @property
    def live(self) -> Path:
        """The link to the slot that gets the traffic; nginx resolves it at every connect."""
        return self.home / "live"

    @property
    def previous(self) -> Path:
        """The link to the release that was live before; pages of that release find their assets there."""
        return self.home / "previous"

    @property
    def switching(self) -> Path:
        """The file that says, from before a switch until nothing is left to do for it, which one is under way."""
        return self.home / "switching"

    @property
    def history(self) -> Path:
        """The file that says what was live, with which configuration."""
        return self.home / "history"

    @property
    def reloading(self) -> Path:
        """While a reload is under way, a link to the configuration that the server runs with."""
        return self.configuration / "reloading"

    @property
    def configuration(self) -> Path:
        """The directory with a link for each slot to its configuration."""
        return self.root / "etc/slipway" / self.name

    @property
    def units(self) -> Path:
        """Where unit files are installed."""
        return self.root / "etc/systemd/system"

    @property
    def cache(self) -> Path:
        """What builds of this app may keep; of no other app."""
        return self.root / "var/cache/slipway" / self.name

    @property
    def state(self) -> Path:
        """The app's data, the one place that it may write to."""
        return self.root / "var/lib/slipway" / self.name

    @property
    def account(self) -> Path:
        """The file by which its user is made at each boot."""
        return self.root / "etc/sysusers.d" / f"slipway-{self.name}.conf"

    @property
    def user(self) -> str:
        """The user that the app runs as."""
        return f"slipway-{self.name}"

    def release(self, identity: str) -> Path:
        """The directory of a release."""
        return self.releases / identity

    def is_complete(self, identity: str) -> bool:
        """Whether a release was built to its end."""
        return (self.release(identity) / "complete").is_file()

    def slot(self, slot: str) -> Path:
        """A slot's directory, with its links ``release`` and ``socket``."""
        return self.home / "slots" / slot

    def socket(self, slot: str) -> Path:
        """The socket on which a slot is reached."""
        return self.root / "run/slipway" / f"{self.name}-{slot}.sock"

    def unit(self, slot: str, kind: str = "service") -> str:
        """The name of a slot's unit: kind is service, socket, check.service, migrate.service or a hook's."""
        task, _, suffix = kind.rpartition(".")
        return f"slipway-{self.name}{'-' if task else ''}{task}@{slot}.{suffix}"

    def live_slot(self) -> str | None:
        """The slot that the link names, or None before the first release."""
        return _target(self.live)

    def release_before(self) -> str | None:
        """The release that was live before another one took its place, or None."""
        return _target(self.previous)

    def release_in(self, slot: str) -> str | None:
        """The release that a slot holds, or None."""
        return _target(self.slot(slot) / "release")


def _target(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def run(
    command: Sequence[str], what: str = "", environment: Mapping[str, str] | None = None, seconds: float | None = None
) -> str:
    """Run a command to its end.

    Args:
        command: the program and its arguments; no shell is involved.
        what: how the failure is introduced, such as ``the build``.
        environment: variables on top of the caller's.
        seconds: how long it may take; None is as long as it wants.

    Returns:
        What it printed, both streams together.

    Raises:
        Failed: it could not be started, took too long, or ended with another status than 0.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise Failed(f"{what or shlex.join(command)}: {error.filename} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what or shlex.join(command)} took longer than {seconds:g} seconds") from error
    if done.returncode:
        shown = what or shlex.join(command)
        said = last_lines(done.stdout)
        raise Failed(f"{shown} failed with status {done.returncode}" + (said and f":\n{said}"))
    return done.stdout


def last_lines(text: str, count: int = 30) -> str:
    """The last lines of an output, which is where a failure says why."""
    return "\n".join(text.strip().splitlines()[-count:])


class Systemd:
    """The service manager, as far as a release needs it."""

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        """The properties ActiveState, SubState, NRestarts, UnitFileState and NeedDaemonReload of units, by name."""
        properties = "Id,ActiveState,SubState,NRestarts,UnitFileState,NeedDaemonReload"
        output = run(["systemctl", "show", f"--property={properties}", *units])
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in output.strip().split("\n\n")]
        return {block["Id"]: block for block in blocks}

    def is_running(self, unit: str) -> bool:
        """Whether a unit is anything but off: also while it starts or stops."""
        return self.show(unit)[unit]["ActiveState"] not in ("inactive", "failed")

    def call(self, *arguments: str) -> None:
        """Run systemctl with these arguments; ``Failed`` if it does not succeed."""
        run(["systemctl", "--quiet", *arguments])

    def start(self, service: str, seconds: float) -> None:
        """Start a service; ``Failed`` if it crashed, or has not started after so many seconds."""
        run(["systemctl", "--quiet", "start", service], what="the start of the app", seconds=seconds)

    def verify(self, paths: Sequence[Path]) -> None:
        """Refuse unit files that systemd has anything to say about; it exits with 0 on unknown keys."""
        output = run(["systemd-analyze", "verify", "--man=no", *map(str, paths)], what="systemd-analyze verify")
        if output.strip():
            raise Failed(f"systemd does not accept the units as they are:\n{last_lines(output)}")

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove directories without waiting: thousands of files take some disks seconds."""
        idle = ("--nice=19", "--property=IOSchedulingClass=idle")
        run(
            [
                "systemd-run",
                "--quiet",
                "--no-block",
                "--collect",
                *idle,
                "rm",
                "--recursive",
                "--force",
                *map(str, paths),
            ]
        )

    def journal(self, unit: str, since: float) -> str:
        """A unit's last lines since a time in seconds of the epoch, long ones without their middle."""
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=25", f"--unit={unit}"]
        lines = run([*command, f"--since=@{since:.6f}"]).strip().splitlines()
        return "\n".join(line if len(line) <= 600 else f"{line[:200]} [...] {line[-350:]}" for line in lines)

    def now(self) -> float:
        """The time, in seconds of the epoch."""
        return time.time()
