"""What clients notice of a reload, a switch and a restart, for each server."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from load import Load, Report

from .figures import Bars, Spread, Table, count, total
from .hosts import Failed, Host, Run, play, source, tell
from .path import SERVERS

# As in the tests of deploys: without a pause the load takes all of a small machine for itself.
CLIENTS, PACE = 32, 0.1
WARM_SECONDS, SETTLE_SECONDS = 2.0, 6.0
ACTIONS = ("reload", "switch", "restart")


def load(host: Host, name: str, certificate: str) -> Load:
    """The load under which deploys are looked at: GET and POST, on kept connections and on fresh ones."""
    return Load(f"https://{host.address}", certificate, name, clients=CLIENTS, slow=0, pace=PACE)


def summary(report: Report) -> dict[str, Any]:
    """What the load saw."""
    return {
        "requests": report.requests,
        "failed": report.failed.total(),
        "kinds": dict(report.failed),
        "silence": report.silence,
    }


def measure(run: Run) -> dict[str, Any]:
    """Measure, and return for each server and action what the load saw each time."""
    for app in set(SERVERS.values()):
        source(app, 1)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {app: {action: [] for action in ACTIONS} for app in SERVERS}
    with run.hosts("slipway-bench-servers") as (host,):
        tell("deploying each server")
        play("playbooks/site.yml", limit=[host.name])
        for number in range(1, run.pick(3, 1) + 1):
            for app, seen in found.items():
                name = f"{app}.bench.test"
                with run.attempt(f"round {number}, {app}"), load(host, name, host.certificate(app)) as watching:
                    for action, times in seen.items():
                        times.append(_seen(watching, functools.partial(_do, host, app, action, number)))
    return {"servers": found}


def _seen(watching: Load, what: Callable[[], None]) -> dict[str, Any]:
    """What the load saw while something was done, and until it had settled."""
    time.sleep(WARM_SECONDS)
    watching.take()
    refused = ""
    try:
        what()
    except Failed as error:
        refused = str(error)[-2000:]
    time.sleep(SETTLE_SECONDS)
    return {**summary(watching.take()), "refused": refused}


def _do(host: Host, app: str, action: str, number: int) -> None:
    """Reload, switch or restart an app."""
    # From here on it runs with what the last switch has given it.
    given = number - 1 if action == "reload" else number
    layer = {"slipway_app_overrides_bench": {app: {"environment": {"ROUND": str(given)} if given else {}}}}
    if action == "restart":
        host.run(f"systemctl restart {host.live(app)}")
    else:
        playbook = "reload" if action == "reload" else "deploy"
        play(f"playbooks/{playbook}.yml", "-e", f"app={app}", limit=[host.name], variables=layer)


def silence(times: list[dict[str, Any]]) -> str:
    """The longest time without an answer, in milliseconds."""
    spread = Spread.of(each["silence"] * 1000 for each in times)
    return f"{spread.median:.0f} ({spread.low:.0f} to {spread.high:.0f})"


def failures(times: list[dict[str, Any]]) -> str:
    """What failed, by kind."""
    kinds: dict[str, int] = {}
    for each in times:
        for kind, number in each["kinds"].items():
            kinds[kind] = kinds.get(kind, 0) + number
    listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return f"{count(sum(kinds.values()))} ({listed})" if kinds else "0"


def plots(_found: Mapping[str, Any]) -> Iterator[Bars]:
    """Counts of nothing make no plot."""
    yield from ()


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The table of this part."""
    rows = []
    for app, seen in found["servers"].items():
        for action, times in seen.items():
            if not times:
                continue
            refused = sum(bool(each["refused"]) for each in times)
            done = f"{len(times)} times" + (f", {refused} refused" if refused else "")
            rows.append(
                (app, action, done, count(total(times, "requests")), failures(times), silence(times)),
            )
    yield Table(
        "What clients notice",
        f"{CLIENTS} clients ask all the time, half of them by POST, half over a connection for each request. A reload "
        "is `playbooks/reload.yml`, which switches where the server knows none, a switch `playbooks/deploy.yml` with a "
        "changed environment, and a restart `systemctl restart` of the live slot. Silence is the longest time without "
        "an answer.",
        ("server", "what", "done", "requests", "failed", "silence, ms"),
        rows,
    )
