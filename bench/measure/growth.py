"""What more apps on a host, and more hosts, cost."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from load import Load

from .figures import Lines, Spread, Table
from .hosts import Failed, Host, Run, play, source, tell, timed, unchanged
from .reload import PACE

APPS, HOSTS = (1, 5, 10, 20), (1, 2, 4, 8)
ASKED_SECONDS = 4.0
# How many times as long as with one app a run without a change may take with the most.
LIMIT = 2.5


def apps(number: int, source: Path, first: Path) -> dict[str, Any]:
    """So many apps of one source, as ``slipway_apps``; the first may have another."""
    return {
        f"app-{each}": {
            "domains": [f"app-{each}.bench.test"],
            "source": {"path": str(first if each == 1 else source)},
            "entrypoint": "main:app",
            "ready_path": "/ready",
        }
        for each in range(1, number + 1)
    }


def measure(run: Run) -> dict[str, Any]:
    """Measure, and return seconds by number of apps and of hosts, and memory in KiB."""
    found: dict[str, Any] = {}
    for what, measured in (("apps", _apps), ("memory", _memory), ("hosts", _hosts)):
        with run.attempt(f"growth, {what}"):
            found[what] = measured(run)
    if not found:
        raise Failed("nothing could be measured")
    return found


def _apps(run: Run) -> dict[str, Any]:
    """By number of apps: seconds without a change and with one, and the memory of one app's slot."""
    counts = APPS[: run.pick(len(APPS), 2)]
    found: dict[str, Any] = {str(each): {"unchanged": [], "changed": [], "memory": 0} for each in counts}
    plain, version = source("asgi", 1), 1
    with run.hosts("slipway-bench-growth") as (host,):

        def site(number: int) -> tuple[float, str]:
            variables = {"slipway_apps": apps(number, plain, plain)}
            return timed(lambda: play("playbooks/site.yml", limit=[host.name], variables=variables))

        def deploy(number: int, first: Path) -> tuple[float, str]:
            variables = {"slipway_apps": apps(number, plain, first)}
            return timed(lambda: play("playbooks/deploy.yml", limit=[host.name], variables=variables))

        for number in counts:
            tell(f"bringing apps live: {number}")
            site(number)
            found[str(number)]["memory"] = host.memory(host.live("app-1"))[1]
        for each in range(run.pick(3, 1)):
            took: dict[int, tuple[float, float]] = {}
            with run.attempt(f"apps, round {each + 1}"):
                for number in counts:
                    # nginx's configuration is that of the apps of the run before, and the first app of another source.
                    site(number)
                    seconds, printed = site(number)
                    unchanged(printed)
                    version += 1
                    took[number] = seconds, deploy(number, source("asgi", version))[0]
                for number, (same, changed) in took.items():
                    found[str(number)]["unchanged"].append(same)
                    found[str(number)]["changed"].append(changed)
    return whole(found, found["1"]["unchanged"])


def whole(found: dict[str, Any], rounds: list[float]) -> dict[str, Any]:
    """What was found in at least one round.

    Raises:
        Failed: in none.
    """
    if not rounds:
        raise Failed("no round was measured to its end")
    return found


def _memory(run: Run) -> dict[str, Any]:
    """Processes and KiB of the sample app's slot, with preload and without."""
    with run.hosts("slipway-bench-memory") as (host,):
        tell("bringing the sample app live, with preload and without")
        play("playbooks/site.yml", limit=[host.name])
        return {app: _used(host, app) for app in ("alone", "preloaded")}


def _used(host: Host, app: str) -> dict[str, int]:
    """What an app uses once it has been asked for a while."""
    with Load(f"https://{host.address}", host.certificate(app), f"{app}.bench.test", clients=8, slow=0, pace=PACE):
        time.sleep(ASKED_SECONDS)
    processes, share = host.memory(host.live(app))
    return {"processes": processes, "memory": share}


def _hosts(run: Run) -> dict[str, list[float]]:
    """Seconds without a change, by number of hosts."""
    counts = HOSTS[: run.pick(len(HOSTS), 2)]
    source("asgi", 1)
    names = [f"slipway-bench-fleet-{number}" for number in range(1, counts[-1] + 1)]
    found: dict[str, list[float]] = {str(number): [] for number in counts}
    with run.hosts(*names):
        tell("bringing an app live on each")
        play("playbooks/site.yml", limit=names)
        for each in range(run.pick(3, 1)):
            took: dict[int, float] = {}
            with run.attempt(f"hosts, round {each + 1}"):
                for number in counts:
                    took[number], printed = timed(functools.partial(play, "playbooks/site.yml", limit=names[:number]))
                    unchanged(printed)
                for number, seconds in took.items():
                    found[str(number)].append(seconds)
    return whole(found, found["1"])


def by_apps(found: Mapping[str, Any], what: str) -> dict[int, Spread]:
    """How many times a run takes what it takes with one app, by number of apps; ``unchanged`` or ``changed``."""
    return {int(number): Spread.ratios(each[what], found["apps"]["1"][what]) for number, each in found["apps"].items()}


def by_hosts(found: Mapping[str, Any]) -> dict[int, Spread]:
    """The same for a run without a change, by number of hosts."""
    return {int(number): Spread.ratios(each, found["hosts"]["1"]) for number, each in found["hosts"].items()}


def mib(kib: int) -> str:
    """Memory for a reader, in MiB."""
    return f"{kib / 1024:.1f}"


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of this part."""
    if "apps" in found:
        yield _table_of_apps(found)
    if "memory" in found:
        yield _table_of_memory(found["memory"])
    if "hosts" in found:
        yield Table(
            "More hosts",
            "How long `playbooks/site.yml` takes where nothing has changed, with one app on each host, as a ratio to "
            "the same with one host. All hosts are containers on one machine, and share its CPUs with Ansible.",
            ("hosts", "no change"),
            [(str(number), str(spread)) for number, spread in by_hosts(found).items()],
        )


def _table_of_apps(found: Mapping[str, Any]) -> Table:
    same, changed = by_apps(found, "unchanged"), by_apps(found, "changed")
    most = max(same)
    verdict = "They do." if same[most].median <= LIMIT else "**They do not.**"
    wanted = f" {most} apps shall cost at most {LIMIT} times one. {verdict}" if most == APPS[-1] else ""
    return Table(
        "More apps on a host",
        "How long a run takes, as a ratio to the same with one app: `playbooks/site.yml` where nothing has changed, "
        f"`playbooks/deploy.yml` where the code of one app has.{wanted} Memory is what the processes of one app's slot "
        "have of their own, with their share of what they map together with others (PSS); the app is a tiny one, just "
        "started.",
        ("apps", "no change", "changed code of one", "memory of one app, MiB"),
        [
            (str(number), str(same[number]), str(changed[number]), mib(found["apps"][str(number)]["memory"]))
            for number in same
        ],
        plot="growth",
    )


def _table_of_memory(found: Mapping[str, Any]) -> Table:
    return Table(
        "Memory with preload and without",
        "The sample app, after it was asked for a while.",
        ("preload", "processes", "memory, MiB", "ratio"),
        [
            (
                "on" if app == "preloaded" else "off",
                str(used["processes"]),
                mib(used["memory"]),
                f"{used['memory'] / found['alone']['memory']:.2f}",
            )
            for app, used in found.items()
        ],
    )


def plots(found: Mapping[str, Any]) -> Iterator[Lines]:
    """The plot of this part."""
    if "apps" not in found:
        return
    lines = {"apps, no change": by_apps(found, "unchanged"), "apps, changed code of one": by_apps(found, "changed")}
    if "hosts" in found:
        lines["hosts, no change"] = by_hosts(found)
    axes = ("apps on a host, or hosts", "ratio to one")
    yield Lines("growth", "How long a run takes", axes, lines, LIMIT, f"what {APPS[-1]} apps may take, no change")
