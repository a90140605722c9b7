"""Where Slipway keeps an app on a host, and the few commands by which it moves it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.generations import make_directory

SLOTS = ("blue", "green")
# It becomes part of user, unit and path names, of which a user's may have 31 characters.
APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,22}")
# The file of a release that says how large each of its files was when it was built.
MANIFEST = "manifest"
# Seconds between two tries to take a lock.
PAUSE_SECONDS = 0.1
# Seconds that another run may take to apply what has changed, which may be an installation.
APPLY_SECONDS = 300.0


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

    def damage(self, identity: str) -> str:
        """What a release lacks of what was built, for a reader; "" where it is whole.

        Sizes are compared and no contents, of which a release has a hundred megabytes. A release without a manifest
        was built before there was one.
        """
        if not self.is_complete(identity):
            return "complete is gone"
        release = self.release(identity)
        try:
            sizes = dict(json.loads((release / MANIFEST).read_bytes()))
        except FileNotFoundError:
            return ""
        except (TypeError, ValueError):
            return f"{MANIFEST} cannot be read"
        for path, size in sizes.items():
            found = _size(f"{release}/{path}")
            if found != size:
                return f"{path} is gone" if found is None else f"{path} is not as it was built"
        return ""

    def slot(self, slot: str) -> Path:
        """A slot's directory, with its links ``release`` and ``socket``."""
        return self.home / "slots" / slot

    def socket(self, slot: str) -> Path:
        """The socket on which a slot is reached."""
        return self.root / "run/slipway" / f"{self.name}-{slot}.sock"

    def size(self, slot: str) -> dict[str, Any] | None:
        """What a slot's server wrote down when it started: workers, threads, and why so many; None where it did not."""
        path = self.root / "run/slipway" / f"{self.name}-{slot}" / "sizing"
        try:
            # The app can put there what it likes: a link, a pipe without an end, or what a terminal takes for orders.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                found = json.loads(file.read(4096))
            size = {name: found[name] for name in ("workers", "threads", "why")}
            good = [*map(type, size.values())] == [int, int, str] and size["why"].isprintable()
            return size if good and all(0 < size[name] < 10_000 for name in ("workers", "threads")) else None
        except (LookupError, OSError, RecursionError, TypeError, ValueError):
            return None

    def unit(self, slot: str, kind: str = "service") -> str:
        """The name of a slot's unit: kind is service, socket, check.service, migrate.service or a hook's."""
        task, _, suffix = kind.rpartition(".")
        return f"slipway-{self.name}{'-' if task else ''}{task}@{slot}.{suffix}"

    def live_slot(self) -> str | None:
        """The slot that the link names, or None before the first release."""
        slot = _target(self.live, "slots")
        return slot if slot in SLOTS else None

    def release_before(self) -> str | None:
        """The release that was live before another one took its place, or None."""
        return _target(self.previous, "releases")

    def release_in(self, slot: str) -> str | None:
        """The release that a slot holds, or None."""
        return _target(self.slot(slot) / "release", "../../releases")

    def has_socket(self, slot: str) -> bool:
        """Whether a slot's link to its socket is there, by which nginx finds it."""
        return _target(self.slot(slot) / "socket", str(self.socket(slot).parent)) == self.socket(slot).name


def layouts(root: Path = Path("/")) -> list[Layout]:
    """The apps that have anything to serve from on this host, or whose removal was cut off."""
    names = [path.name for path in sorted((root / "srv/slipway").glob("*"))]
    return [Layout(name, root) for name in names if APP_NAME.fullmatch(name)]


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:
        return None


def _target(link: Path, directory: str) -> str | None:
    """What a link names in a directory; None where it is no such link."""
    try:
        found, _, name = os.readlink(link).rpartition("/")
    except OSError:
        return None
    return name if found == directory else None


@contextlib.contextmanager
def lock(path: Path, seconds: float, busy: str) -> Iterator[None]:
    """Keep everybody else out; the kernel lets go of the lock when this process ends, however it ends.

    Args:
        path: the lock's file, which only root may open. Who holds the lock may remove it.
        seconds: how long somebody else may hold it before this gives up.
        busy: what is said then.

    Raises:
        Failed: somebody else held it for that long.
    """
    deadline = time.monotonic() + seconds
    while True:
        make_directory(path.parent)
        with open(path, "w", encoding="ascii", opener=functools.partial(os.open, mode=0o600)) as file:
            # Who can open it can hold it, and an app sees the directory in which its own lies.
            os.fchmod(file.fileno(), 0o600)
            if _is_taken(file.fileno(), path):
                yield
                return
        if time.monotonic() > deadline:
            raise Failed(busy)
        time.sleep(PAUSE_SECONDS)


@contextlib.contextmanager
def alone(pending: str | None, seconds: float = APPLY_SECONDS) -> Iterator[None]:
    """Keep other runs of Slipway off what has to be applied while a file is there; without one, this does nothing.

    Args:
        pending: the path of that file.
        seconds: how long another run may be at work.

    Raises:
        Failed: another run did not finish within ``seconds``.
    """
    if pending is None:
        yield
        return
    path = Path(pending).with_name(f".{os.path.basename(pending)}.lock")
    with lock(path, seconds, f"another run of Slipway is at work on this host, see {path}; try again later"):
        try:
            yield
        finally:
            path.unlink()


def _is_taken(handle: int, path: Path) -> bool:
    """Take a lock, unless somebody else holds it or has removed its file meanwhile."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


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
        """The properties of units that are named below, by the name of the unit."""
        properties = "Id,ActiveState,SubState,NRestarts,UnitFileState,NeedDaemonReload,MainPID,ControlGroup"
        output = run(["systemctl", "show", f"--property={properties}", *units])
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in output.strip().split("\n\n")]
        return {block["Id"]: block for block in blocks}

    def is_running(self, unit: str) -> bool:
        """Whether a unit is anything but off: also while it starts or stops."""
        return self.show(unit)[unit]["ActiveState"] not in ("inactive", "failed")

    def call(self, *arguments: str) -> None:
        """Run systemctl with these arguments; ``Failed`` if it does not succeed."""
        run(["systemctl", "--quiet", *arguments])

    def forget_failures(self, units: Sequence[str]) -> None:
        """Let systemd no longer say of units that they have failed, which it would of those that are gone, too."""
        failed = [name for name, unit in self.show(*units).items() if unit["ActiveState"] == "failed"]
        if failed:
            self.call("reset-failed", *failed)

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
        """A unit's last lines since a time in seconds of the epoch, long ones without their middle.

        Of records in JSON they are those of message and exception, as people read them.
        """
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=25", f"--unit={unit}"]
        try:
            entries = run([*command, f"--since=@{since:.6f}"]).strip().splitlines()
        except Failed as error:
            # It is shown beside the reason of a failure, in whose place it must not come.
            return str(error)
        lines = [line for entry in entries for line in _told(entry)]
        return "\n".join(line if len(line) <= 600 else f"{line[:200]} [...] {line[-350:]}" for line in lines[-25:])

    def now(self) -> float:
        """The time, in seconds of the epoch."""
        return time.time()


def _told(entry: str) -> list[str]:
    try:
        record = json.loads(entry)
        return f"{record['level']}: {record['message']}\n{record.get('exception', '')}".splitlines()
    except (KeyError, TypeError, ValueError):
        return [entry]
