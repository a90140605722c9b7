"""The hosts: containers that boot systemd, as all scenarios have them; what is done to them, and read from them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import figures

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "bench/measure"
WORK = ROOT / ".cache/bench"
AWAY, CREATE = ("molecule/shared/destroy.yml",), ("molecule/shared/create.yml",)
CONNECTIONS = 32
# What has the control groups of all units, and of the host.
_CPU = "find /sys/fs/cgroup -name cpu.stat -exec grep -H usage_usec {} +"
# The processes of a unit that is there once, by what the kernel says of their memory.
_MEMORY = """
group=$(systemctl show --property=ControlGroup --value "{unit}")
for pid in $(cat "/sys/fs/cgroup$group/cgroup.procs"); do cat "/proc/$pid/smaps_rollup"; done
"""
# Posts a body of 100 kB.
_UPLOAD = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", 100000)
"""


class Failed(Exception):
    """What was to be measured is not there; the message says what was printed."""


def tell(what: str) -> None:
    """Say what comes next."""
    print(f"bench: {what}", flush=True)


def called(command: Sequence[str | Path], given: bytes | None = None, **options: Any) -> str:
    """Run a program to its end and return all that it printed.

    Raises:
        Failed: it ended with another status than 0.
    """
    done = subprocess.run(
        command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=ROOT, **options
    )
    said: str = done.stdout.decode(errors="replace")
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))[:200]} ended with {done.returncode}:\n{said}")
    return said


def timed(what: Callable[[], str]) -> tuple[float, str]:
    """How many seconds something took, and what it printed."""
    started = time.monotonic()
    printed = what()
    return time.monotonic() - started, printed


def play(*playbooks: str, limit: Sequence[str], variables: Mapping[str, Any] | None = None) -> str:
    """Run playbooks as their user does, against some hosts, and return what was printed, with each task's seconds.

    Args:
        playbooks: their paths, and other arguments.
        limit: the names of the hosts.
        variables: what the inventory does not say.

    Raises:
        Failed: they did.
    """
    command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", "-i", HERE / "inventory.yml"]
    command += ["--limit", ",".join(limit), "-e", json.dumps(variables or {}), *playbooks]
    profile = {
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_SUMMARY_ONLY": "true",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
    }
    return called(command, b"", env={**os.environ, **profile})


def unchanged(printed: str) -> None:
    """Insist that a run of a playbook has changed nothing.

    Raises:
        Failed: it did.
    """
    if figures.changes(printed):
        raise Failed(f"a run that should have changed nothing did:\n{printed}")


@dataclasses.dataclass(frozen=True)
class Host:
    """A container that is a machine.

    Attributes:
        name: its name, in the inventory as well.
    """

    name: str

    def run(self, script: str, given: str | bytes = b"") -> str:
        """Run a shell script as root.

        Raises:
            Failed: it did.
        """
        content = given.encode() if isinstance(given, str) else given
        return called(["docker", "exec", "-i", self.name, "sh", "-ec", script], content)

    def send(self, path: str, text: str) -> None:
        """Write a file."""
        self.run(f"mkdir -p $(dirname {path}) && cat >{path}", text)

    @property
    def address(self) -> str:
        """Its own address: the proxy of published ports takes a fifth of a CPU under load."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return called(["docker", "inspect", "--format", networks, self.name]).split()[0]

    def cpu(self) -> dict[str, int]:
        """CPU time by control group, as :func:`figures.cpu` has it."""
        # A group may go while it is looked at.
        return figures.cpu(self.run(f"{_CPU} 2>/dev/null || :"))

    def memory(self, unit: str) -> tuple[int, int]:
        """How many processes a unit has, and their proportional shares of memory in KiB."""
        return figures.memory(self.run(_MEMORY.format(unit=unit)))

    def live(self, app: str) -> str:
        """The name of the service that has an app's traffic."""
        slot = self.run(f'basename "$(readlink /srv/slipway/{app}/live)"').strip()
        return f"slipway-{app}@{slot}.service"

    def certificate(self, app: str) -> str:
        """The certificate that an app is served with, in PEM."""
        return self.run(f"cat /etc/slipway/certificates/{app}/fullchain.pem")

    def versions(self, directory: str, names: Sequence[str]) -> list[str]:
        """Which versions of these packages are installed beneath a directory, and of the host's own programs."""
        pattern = "|".join(re.escape(name.replace("-", "_")) for name in names)
        found = self.run(f"find -L {directory} -name '*.dist-info' -printf '%f\\n' | sort -u")
        packages = re.findall(rf"(?m)^({pattern})-(.+)\.dist-info$", found)
        own = self.run("python3 --version; nginx -v 2>&1 | sed 's,.*version: nginx/,nginx ,'").splitlines()
        return [*own, *(f"{name.replace('_', '-')} {version}" for name, version in packages)]

    def trust_our_cas(self) -> None:
        """Give a host the authorities of this machine, as Slipway does, for those behind a proxy that inspects TLS."""
        for path in sorted(Path("/usr/local/share/ca-certificates").glob("*.crt")):
            self.send(f"/usr/local/share/ca-certificates/{path.name}", path.read_text())
        self.run("update-ca-certificates >/dev/null 2>&1")

    def sample(self, units: Mapping[str, str], load: Callable[[], figures.Answers]) -> dict[str, Any]:
        """Put a load on this host, and return what came of it and the CPU time that it took, in microseconds.

        Raises:
            Failed: nothing came of it.
        """
        before = self.cpu()
        answers = load()
        if not answers.requests:
            raise Failed("nobody answered")
        return {**dataclasses.asdict(answers), "cpu": figures.used(before, self.cpu(), units)}


class Client(Host):
    """The host that asks, so that what it takes is no part of what the others take."""

    def prepare(self, names: Mapping[str, str]) -> None:
        """Install wrk, and say where names lead: addresses by names."""
        self.run("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends wrk")
        self.send("/root/upload.lua", _UPLOAD)
        lines = "".join(f"{address} {name}\n" for name, address in names.items())
        self.run("cat >>/etc/hosts", lines)

    def wrk(self, url: str, seconds: int, upload: bool = False) -> figures.Answers:
        """Ask for an address again and again, over TLS connections that are kept.

        Args:
            url: the address.
            seconds: for how long.
            upload: whether a body of 100 kB is posted each time.

        Raises:
            Failed: there was nobody to ask.
        """
        script = " --script /root/upload.lua" if upload else ""
        command = f"wrk --threads 1 --connections {CONNECTIONS} --duration {seconds}s --timeout 10s{script} {url}"
        return figures.answers(self.run(command))


@dataclasses.dataclass(frozen=True)
class Run:
    """How much is measured.

    Attributes:
        quick: whether in small counts.
        keep: whether hosts are left for a look, until the same part is measured again.
        failed: what could not be measured.
    """

    quick: bool = False
    keep: bool = False
    failed: list[str] = dataclasses.field(default_factory=list)

    def pick(self, full: int, small: int) -> int:
        """A count."""
        return small if self.quick else full

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Let what fails in here be no loss to the rest."""
        tell(what)
        try:
            yield
        except Exception:
            traceback.print_exc()
            self.failed.append(what)

    @contextlib.contextmanager
    def hosts(self, *names: str) -> Iterator[list[Host]]:
        """Make hosts, bare ones, and remove them at the end."""
        tell(f"making {len(names)} hosts" if len(names) > 1 else "making a host")
        try:
            play(*AWAY, *CREATE, limit=names)
            yield [Host(name) for name in names]
        finally:
            if not self.keep:
                play(*AWAY, limit=names)


# --- sources


def source(app: str, version: int) -> Path:
    """Make the source of a version of one of the apps in apps/, and return its directory."""
    target = WORK / f"sources/{app}-{version}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE / "apps" / app, target, ignore=shutil.ignore_patterns("__pycache__"))
    main = target / "main.py"
    main.write_text(main.read_text().replace('VERSION = "1"', f'VERSION = "{version}"'))
    if app == "fastapi":
        shutil.copy(ROOT / "sample_app/requirements.txt", target)
    (target / "static").mkdir()
    (target / "static/page.css").write_text("p { margin: 0 }\n" * 640)
    return target


def sample_app(version: int, packages: Sequence[str] = ()) -> Path:
    """Make the source of a version of the sample app, with packages on top that the controller has pinned as well."""
    target = WORK / f"sources/sample_app-{version}"
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("dist", "state", ".*", "__pycache__")
    shutil.copytree(ROOT / "sample_app", target, ignore=ignored)
    about = target / "guestbook/about.py"
    about.write_text(about.read_text().replace('"1.0.0"', f'"1.0.{version}"'))
    pins = (ROOT / "requirements.txt").read_text()
    requirements = target / "requirements.txt"
    requirements.write_text(requirements.read_text() + "".join(figures.pinned(pins, name) for name in packages))
    return target


def packed(directory: Path) -> bytes:
    """A directory as a tar file, which anybody can read where it is unpacked."""

    def readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    path = directory.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(directory, arcname=".", filter=readable)
    return path.read_bytes()
