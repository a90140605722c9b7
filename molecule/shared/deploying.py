"""What tests of deploys share: the deploys, the load that watches them, and the table of what was counted."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hosts import APP, ROOT, Site, aligned, look, play, start, wait_until
from load import Load, Report

HOME = f"/srv/slipway/{APP}"
CONFIGURATION = f"/etc/slipway/{APP}"
# As the scenario's inventory says.
DRAIN_SECONDS = 3
# A row with fewer requests has shown nothing.
LEAST = 5000
CLIENTS = 32
SOCKETS = 8
SLOW = 1
# Whether the full counts are wanted.
SOAK = os.environ.get("SLIPWAY_SOAK") == "1"
# Seconds from one question of a client to its next. Without, the load takes all of a small machine for itself; a small
# run leaves some to machines that are slower.
PACE = 0.08 if SOAK else 0.1
# The same while nothing else is at work.
HURRY = 0.025
# The share of the CPUs that others may take before nothing can be said of how long something takes.
OTHERS = 0.25

# The smallest app there is; {} is what it answers, an expression.
TINY_APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": {}}})
"""

_NUMBERS = itertools.count(1)

# Prints when the link `live` changes, with the time in seconds of the epoch, until its input ends.
_FOLLOW = f"""
import os, select, sys, time
last = None
while not select.select([sys.stdin], [], [], 0.005)[0]:
    now = os.path.basename(os.readlink("{HOME}/live"))
    if now != last:
        print(time.time(), last := now, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Cpu:
    """CPU time of this machine in seconds: all that there was, what was not idle, and what of that was the test's."""

    all: float = 0.0
    busy: float = 0.0
    ours: float = 0.0

    @classmethod
    def now(cls, host: Any) -> Cpu:
        """What it is by now; the test's is what this process, its children and the host took."""
        user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        busy = (user + nice + system + sum(rest)) / ticks
        usage = int(host.check_output("grep -o 'usage_usec.*' /sys/fs/cgroup/cpu.stat").split()[1]) / 1e6
        return cls(busy + (idle + wait) / ticks, busy, usage + sum(os.times()[:4]))

    def since(self, before: Cpu) -> Cpu:
        """What it came to since."""
        return Cpu(self.all - before.all, self.busy - before.busy, self.ours - before.ours)

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.all + other.all, self.busy + other.busy, self.ours + other.ours)

    @property
    def others(self) -> float:
        """The share of the CPUs that others took."""
        return max(0.0, self.busy - self.ours) / self.all if self.all else 0.0


@dataclasses.dataclass
class Row:
    """One row of the table.

    Attributes:
        system: the host's distribution.
        what: what was done.
        count: how often, or how often of how often.
        report: what the load saw meanwhile; nothing where there was none.
        note: what else was measured.
        cpu: what the machine did meanwhile.
        passed: whether all that was claimed of it held.
        untold: what took longer than it may, on a machine that was busy with something else.
    """

    system: str
    what: str
    count: int | str = 0
    report: Report = dataclasses.field(default_factory=Report)
    note: str = ""
    cpu: Cpu = Cpu()
    passed: bool = False
    untold: list[str] = dataclasses.field(default_factory=list)

    def within(self, what: str, seconds: float, limit: float) -> None:
        """Insist that something took no longer than it may, unless this machine was too busy with something else."""
        if seconds < limit:
            return
        said = f"{what} took {seconds:.2f} s"
        assert self.cpu.others > OTHERS, f"{self.what}: {said}, it may {limit:g}; {self.report}"
        self.untold.append(said)

    def hold(self, releases: int = 1, slots: int = 1, lost: bool = False) -> None:
        """Insist that enough was counted and, unless some may be lost, that nothing failed."""
        served = self.report.served
        assert self.report.requests >= LEAST, f"{self.what}: only {self.report}"
        assert len({release for release, _ in served}) >= releases, f"{self.what}: too few releases in {self.report}"
        assert len({slot for _, slot in served}) >= slots, f"{self.what}: too few slots in {self.report}"
        assert lost or not self.report.failed, f"{self.what}: {self.report}"
        self.passed = True

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        report = self.report
        loaded = report.requests > 0
        return (
            self.system,
            self.what,
            str(self.count),
            str(report.requests) if loaded else "-",
            report.failures() if loaded else "-",
            f"{report.silence * 1000:.0f} ms" if loaded else "-",
            str(len({release for release, _ in report.served})) if loaded else "-",
            str(len({slot for _, slot in report.served})) if loaded else "-",
            self.note or "-",
            f"{self.cpu.others:.0%}" if loaded else "-",
            self.verdict(),
        )

    def verdict(self) -> str:
        """How it ended."""
        if not self.passed:
            return "FAILED"
        return f"passed, but the machine was busy: {', '.join(self.untold)}" if self.untold else "passed"


HEAD = (
    "system",
    "what",
    "count",
    "requests",
    "failed",
    "silence",
    "releases",
    "slots",
    "seen",
    "others' CPU",
    "",
)
# In the order of the tests.
ROWS: list[Row] = []


def table() -> Iterator[str]:
    """The lines of the table."""
    return aligned([HEAD, *(row.cells() for row in ROWS)])


class Deploys:
    """One host, what is deployed to it, and the load that watches.

    Attributes:
        options: the app's options on top of the scenario's inventory, which hold from deploy to deploy.
    """

    def __init__(self, host: Any, site: Site, directory: Path, app: str = APP, sockets: int = SOCKETS) -> None:
        self.host, self.site, self.directory, self.app = host, site, directory, app
        self.options: dict[str, Any] = {}
        self.load = Load(
            site.address,
            site.certificate,
            site.domain,
            clients=CLIENTS,
            sockets=sockets,
            slow=SLOW,
            pace=PACE,
        )

    # --- the table

    def row(self, what: str) -> Row:
        """A new row."""
        row = Row("-".join(self.site.container.split("-")[2:]), what)
        ROWS.append(row)
        return row

    @contextlib.contextmanager
    def counted(self, row: Row, least: int = 0) -> Iterator[None]:
        """Count in a row what the load sees from here to the end of the block, or until it saw so many requests."""
        self.load.take()
        before = Cpu.now(self.host)
        try:
            yield
            self.load.pace = HURRY
            wait_until(lambda: self.load.report.requests >= least, 60, f"{least} requests")
        finally:
            self.load.pace = PACE
            row.report.add(self.load.take())
            row.cpu += Cpu.now(self.host).since(before)

    # --- deploys

    def release(self, change: Callable[[Path], None] | None = None) -> dict[str, Any]:
        """The options for a new release: the sample app with a version of its own, which its environment knows too.

        Args:
            change: what else is changed in its source.
        """
        version = f"1.0.{next(_NUMBERS)}"
        target = self.directory / version
        ignore = shutil.ignore_patterns("dist", "state", ".*", "__pycache__")
        shutil.copytree(ROOT / "sample_app", target, ignore=ignore)
        about = target / "guestbook/about.py"
        about.write_text(about.read_text().replace('"1.0.0"', f'"{version}"'))
        if change:
            change(target)
        return {"source": {"path": str(target)}, "environment": {"GREETING": f"of {version}"}}

    def layer(self, **options: Any) -> Path:
        """A layer on top of the scenario's inventory with these options of the app, and those that hold."""
        path = self.directory / f"layer-{next(_NUMBERS)}.yml"
        overrides = {"slipway_app_overrides_test": {self.app: {**self.options, **options}}}
        path.write_text(yaml.safe_dump({"test": {"hosts": {self.site.container: None}, "vars": overrides}}))
        return path

    def deploy(self, playbook: str = "deploy", ansible: Mapping[str, str] | None = None, **options: Any) -> str:
        """Run a playbook with these options of the app, which then hold, and return what it printed.

        Args:
            playbook: its name.
            ansible: variables of Ansible's own environment.
            options: the app's options.
        """
        layer = self.layer(**options)
        self.options.update(options)
        alone = ("-e", f"app={self.app}")
        return play(self.site.container, *alone, inventories=(layer,), playbook=playbook, environment=ansible)

    def refused(self, **options: Any) -> str:
        """Deploy what must be refused, and return why it was; the options from before hold on."""
        layer = self.layer(**options)
        try:
            play(self.site.container, inventories=(layer,), playbook="deploy")
        except AssertionError as error:
            return str(error)
        raise AssertionError(f"was not refused: {options}")

    def begin(self, **options: Any) -> subprocess.Popen[str]:
        """Start a deploy and do not wait for it."""
        return start(self.site.container, inventories=(self.layer(**options),), playbook="deploy")

    # --- what is there

    def about(self) -> dict[str, Any]:
        """What the app says of itself."""
        said: dict[str, Any] = self.site.get("/api/about").json()
        return said

    def whole(self) -> dict[str, Any]:
        """Insist that one complete release is live with its own configuration, and return what it says of itself."""
        slot, release = self.host.check_output(
            f"cd {HOME} && slot=$(basename $(readlink live)) && release=$(basename $(readlink slots/$slot/release)) "
            f"&& test -f releases/$release/complete && echo $slot $release"
        ).split()
        said = self.about()
        assert (said["slot"], said["release"]) == (slot, release)
        assert said["greeting"] == f"of {said['version']}"
        assert f'"{said["greeting"]}"' in self.host.file(f"{CONFIGURATION}/{slot}/environment").content_string
        return said

    def footprint(self) -> str:
        """All that makes the live slot what it is: links, configuration, units, and the pid of its master."""
        live = look(self.host)
        slot = live["slot"]
        return live["master"] + self.host.check_output(
            f"readlink {HOME}/live {HOME}/slots/{slot}/release {CONFIGURATION}/{slot}; "
            f"find -L {CONFIGURATION}/{slot} /etc/systemd/system -type f "
            f"-path '*{slot}*' -exec stat --format='%n %a %U %G %Y' {{}} + -exec sha256sum {{}} + | sort"
        )

    def drained(self) -> None:
        """Wait until the slot that is not live has stopped."""
        idle = "green" if look(self.host, self.app)["slot"] == "blue" else "blue"
        unit = f"slipway-{self.app}@{idle}.service"
        wait_until(
            lambda: self.host.run(f"systemctl is-active {unit}").stdout.strip() in ("inactive", "failed"),
            DRAIN_SECONDS + 20,
            f"{unit} has stopped",
        )

    @contextlib.contextmanager
    def followed(self) -> Iterator[list[tuple[float, str]]]:
        """Follow the link `live`: when, in seconds of the epoch, it came to name which slot; filled in at the end."""
        seen: list[tuple[float, str]] = []
        command = ["docker", "exec", "-i", self.site.container, "python3", "-c", _FOLLOW]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as following:
            try:
                yield seen
            finally:
                output, _ = following.communicate("\n")
                seen += [(float(when), slot) for when, slot in map(str.split, output.splitlines())]


def beside(container: str, directory: Path, **apps: Any) -> Path:
    """A layer with these apps beside the scenario's own, for this host alone."""
    inventory = yaml.safe_load((ROOT / "molecule" / container.split("-")[1] / "inventory.yml").read_text())
    own = inventory["slipway"]["vars"]["slipway_apps"]
    own[APP]["source"]["path"] = str(ROOT / "sample_app")
    path = directory / "beside.yml"
    path.write_text(yaml.safe_dump({"beside": {"hosts": {container: {"slipway_apps": {**own, **apps}}}}}))
    return path


def seconds_on_the_host(output: str) -> float:
    """The seconds that the module says it took, from what a playbook printed."""
    found = re.search(r"from slot\s+\w+,\s+([0-9.]+) s", output)
    assert found, output
    return float(found[1])


def kill_all(running: subprocess.Popen[str]) -> None:
    """Kill a program and all that it has started, as when a controller loses its power."""
    found = [running.pid]
    for pid in found:
        # Workers of Ansible are in sessions of their own.
        listed = subprocess.run(["pgrep", "--parent", str(pid)], stdout=subprocess.PIPE, text=True, check=False)
        found += [int(child) for child in listed.stdout.split()]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.communicate()
