#!/usr/bin/python
"""How a host and its apps are: what is live, whether it is ready, what it takes, and what is amiss."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_info
short_description: Show how a host and its apps are
description:
  - Says of each app what is live, whether it is ready, how many workers run, what they take, how many requests came of
    late, and how long the certificate is good; and of the host how full its disk is.
  - What is amiss, it says in words.
  - It needs nothing of the inventory but the names of the apps, and finds those too that are no longer in it. How an
    app is asked whether it is ready, it finds in nginx's configuration.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description: The names of the apps that are meant to be on the host.
    type: list
    elements: str
    required: true
  app:
    description: The one app to look at; all where it is not given.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to show.
seealso:
  - module: slipway.asgi.release_info
  - module: slipway.asgi.certificates_info
"""

EXAMPLES = r"""
- name: Look how the host and its apps are
  slipway.asgi.status_info:
    apps: [shop, blog]
  register: slipway_status
"""

RETURN = r"""
apps:
  description: The apps in the order of their names. What is not known is null.
  returned: always
  type: list
  elements: dict
  sample:
    - name: shop
      slot: green
      release: 3f9a1c20b7de
      since: 1795245060
      ready: false
      workers: 2
      workers_meant: 4
      memory: 192937984
      requests: 2060
      errors: 3
      certificate_days: 73
      problems: ["NOT READY: status 503: the database is away", 2 of 4 workers]
disk:
  description:
    - The file system that holds C(/srv/slipway), with its size and what is left, in bytes, and how full it is, in
      percent of what others than root can fill.
  returned: always
  type: dict
  sample: {size: 42949672960, free: 25333065318, percent: 41}
requests:
  description:
    - Of how many seconds the requests are counted, and whether that is all of the last 5 minutes, which would take too
      long where there are very many. It is null where requests are not logged.
  returned: always
  type: dict
  sample: {seconds: 300, whole: true}
problems:
  description: What is amiss with the host itself.
  returned: always
  type: list
  elements: str
  sample: ["reboot pending since 2026-11-20 06:12"]
amiss:
  description: How many problems there are, of the host and of all its apps.
  returned: always
  type: int
  sample: 3
"""

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk, Wish
from ansible_collections.slipway.asgi.plugins.module_utils.history import History
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Layout, Systemd, layouts
from ansible_collections.slipway.asgi.plugins.module_utils.probes import Probe, ask_socket
from ansible_collections.slipway.asgi.plugins.module_utils.realms import Realm, Refused, inspect

NGINX = "nginx.service"
RUNNING = ("active", "reloading")
# Apps may take seconds to say whether they are ready, so they are asked at the same time, but not all of twenty.
ASKING = 8

# The namespace of the journal that holds a line for each request.
NAMESPACE = "requests"
WINDOW_SECONDS = 300
# journalctl prints some 25,000 lines a second (252, on one CPU), and a host that is busy has less to spare.
MOST_LINES = 30_000
COUNT_SECONDS = 2.0
# So many failed requests, and such a share of all, as no crawler and no single bad page makes.
FEWEST_ERRORS = 3
TOO_MANY_ERRORS = 0.05

# What reading a text of somebody else's as JSON of a certain kind may raise.
GARBAGE = (LookupError, RecursionError, TypeError, ValueError)

FULL_PERCENT = 90
# A certificate is renewed when a third of its life is left. At half of that, or at two weeks, somebody has to look.
LEFT_OF_LIFE = 6
LEFT = datetime.timedelta(days=14)


@dataclasses.dataclass(frozen=True)
class Requests:
    """The requests of late.

    Attributes:
        seconds: of how many seconds.
        whole: whether that is all that was asked for.
        counted: how many there were, by app.
        failed: how many of them were answered with a status from 500 on, by app.
    """

    seconds: int
    whole: bool
    counted: Counter[str]
    failed: Counter[str]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "str", "required": True},
            "app": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        result = look(module.params["apps"], module.params["app"], Systemd())
    except (Failed, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


def look(meant: Sequence[str], only: str, systemd: Systemd, root: Path = Path("/")) -> dict[str, Any]:
    """Look how a host and its apps are.

    Args:
        meant: the names of the apps that are meant to be on it.
        only: the one app to look at, or "" for all.
        systemd: the service manager.
        root: the root of the file system, another directory in tests.

    Returns:
        The module's result.

    Raises:
        Failed: the one app is neither meant nor there, no app can have such a name, or systemd does not answer.
    """
    there = [layout.name for layout in layouts(root)]
    if only not in ("", *meant, *there):
        raise Failed(f'app is "{only}": the apps of this host are {", ".join(meant) or "none"}')
    disk = disk_of(root / "srv/slipway")
    problems = []
    if disk["percent"] >= FULL_PERCENT:
        problems.append(f"the disk is nearly full: {disk['free'] / 2**30:.1f}G left")
    if (pending := reboot_pending_since(root)) is not None:
        problems.append(f"reboot pending since {told(pending)}")
    apps: list[dict[str, Any]] = []
    requests = None
    if any((root / path).exists() for path in ("srv/slipway", "etc/nginx/slipway")):
        names = [only] if only else sorted({*meant, *there})
        live = {layout: layout.live_slot() for layout in [Layout(name, root) for name in names]}
        services = [layout.unit(slot) for layout, slot in live.items() if slot]
        units = systemd.show(NGINX, *services)
        if units[NGINX]["ActiveState"] not in RUNNING:
            problems.append(f"nginx is {units[NGINX]['ActiveState']}")
        with ThreadPoolExecutor(ASKING) as pool:
            counting = pool.submit(count_requests, root)
            apps = list(pool.map(describe, live, live.values(), itertools.repeat(units)))
            requests = counting.result()
        for app in apps:
            add_requests(app, requests)
            if app["name"] not in meant:
                takes = f"playbooks/remove.yml -e app={app['name']} takes it away"
                app["problems"].append(f"it is not in the inventory; {takes}")
    else:
        problems.append("Slipway is not on this host; playbooks/site.yml brings it")
    return {
        "apps": apps,
        "disk": disk,
        "requests": {"seconds": requests.seconds, "whole": requests.whole} if requests else None,
        "problems": problems,
        "amiss": len(problems) + sum(len(app["problems"]) for app in apps),
    }


def describe(layout: Layout, slot: str | None, units: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """One app, but for its requests.

    Args:
        layout: its paths.
        slot: the one that is live, or None.
        units: what systemd says of the service of that.
    """
    release = layout.release_in(slot) if slot else None
    unit = units[layout.unit(slot)] if slot else {}
    unready = why_not_ready(layout, slot, release, unit) if slot else why_not_live(layout)
    problems = [unready] if unready else []
    if release and (damage := layout.damage(release)):
        problems.append(f"its release is damaged: {damage}; playbooks/deploy.yml builds it anew")

    members = members_of(layout.root, unit.get("ControlGroup", ""))
    workers = workers_among(layout.root, members, int(unit.get("MainPID", 0)))
    size = layout.size(slot) if slot else None
    meant = size["workers"] if size else None
    if workers is not None and meant is not None:
        # A server without a master is its own worker.
        workers = max(workers, int(meant == 1))
        if workers < meant:
            problems.append(f"{workers} of {meant} workers")

    days, aging = certificate_of(layout) if layout.home.exists() else (None, [])
    problems += aging
    maintenance = layout.root / "etc/nginx/slipway/maintenance" / layout.name
    if maintenance.exists():
        problems.append(f"under maintenance since {told(maintenance.stat().st_mtime)}")
    return {
        "name": layout.name,
        "slot": slot,
        "release": release,
        "since": History(layout).since(),
        "ready": not unready,
        "workers": workers,
        "workers_meant": meant,
        "memory": memory_of(layout.root, members),
        "certificate_days": days,
        "problems": problems,
    }


def why_not_live(layout: Layout) -> str:
    """Why no slot of an app gets the traffic, for a reader."""
    if not layout.home.exists():
        return "NOT DEPLOYED; playbooks/site.yml brings it"
    if History(layout).entries():
        return "NOT LIVE: the link live is lost; playbooks/deploy.yml puts it back"
    return "NOT LIVE: no release of it was ever ready"


def why_not_ready(layout: Layout, slot: str, release: str | None, unit: Mapping[str, str]) -> str:
    """Why the live slot of an app does not answer as it should, for a reader; "" where it does."""
    service, probe = layout.unit(slot), probe_of(layout)
    if release is None:
        reason = f"the link of slot {slot} to its release is lost; playbooks/deploy.yml puts it back"
    elif not layout.has_socket(slot):
        reason = f"the link of slot {slot} to its socket is lost; playbooks/deploy.yml puts it back"
    elif unit["ActiveState"] not in RUNNING:
        # And not asked: its socket would start it.
        reason = f"{service} is {unit['ActiveState']}"
    elif probe is None:
        reason = "nginx has no site for it; playbooks/site.yml puts it back"
    else:
        reason = ask_socket(layout.socket(slot), probe, release)
    return reason and f"NOT READY: {reason}"


def probe_of(layout: Layout) -> Probe | None:
    """How nginx's site of an app has it asked whether it is ready; None where there is no such site."""
    try:
        site = (layout.root / "etc/nginx/slipway/current/sites" / f"{layout.name}.conf").read_text()
    except OSError:
        return None
    path = re.search(r'proxy_pass "http://unix:\S+/live/socket:([^"]+)";', site)
    host = re.search(r'server_name "([^"]+)"', site)
    return Probe(path[1], host[1], 0) if path and host else None


def members_of(root: Path, group: str) -> list[int]:
    """The processes of a cgroup, by its path; none where there is none, or the host has cgroup v1."""
    if not group:
        return []
    try:
        return [int(pid) for pid in (root / "sys/fs/cgroup" / group[1:] / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def workers_among(root: Path, members: Sequence[int], master: int) -> int | None:
    """How many worker processes a server has started: those of its own program, but for Python's resource tracker.

    Args:
        root: the root of the file system.
        members: the processes of its service.
        master: the one that systemd has started.

    Returns:
        Their number, or None where nothing can be known.
    """
    if master not in members:
        return None
    program = _program(root, master)
    children = [pid for pid in members if _parent(root, pid) == master and _program(root, pid) == program]
    return sum(b"multiprocessing.resource_tracker" not in _read(root, pid, "cmdline") for pid in children)


def memory_of(root: Path, members: Sequence[int]) -> int | None:
    """What processes hold of the memory, in bytes, or None where that cannot be known.

    What they share counts once (Pss, see proc_pid_smaps(5)), and what the kernel caches for them does not: it gives
    that back. So it is less than what systemd says.
    """
    sizes = [re.search(rb"^Pss:\s+(\d+) kB", _read(root, pid, "smaps_rollup"), re.MULTILINE) for pid in members]
    return sum(int(size[1]) * 1024 for size in sizes if size) or None


def _parent(root: Path, pid: int) -> int:
    # The name, in parentheses, may hold anything.
    fields = _read(root, pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _program(root: Path, pid: int) -> str:
    try:
        return os.readlink(root / f"proc/{pid}/exe")
    except OSError:
        return ""


def _read(root: Path, pid: int, name: str) -> bytes:
    """A file of a process; b"" where that has ended."""
    try:
        return (root / f"proc/{pid}" / name).read_bytes()
    except OSError:
        return b""


def count_requests(root: Path) -> Requests | None:
    """Count the requests of late, the newest first and no longer than a reader waits; None where none are logged."""
    if not any(list((root / path).glob(f"*.{NAMESPACE}")) for path in ("var/log/journal", "run/log/journal")):
        return None
    options = ("--quiet", "--no-pager", "--output=cat", "--reverse")
    bounds = (f"--since=-{WINDOW_SECONDS}s", f"--lines={MOST_LINES}")
    command = ["journalctl", f"--namespace={NAMESPACE}", "--identifier=nginx", *options, *bounds]
    counted: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    read, oldest = 0, ""
    # Line by line: there may be too many, and too long ones, for the memory of a small host.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as journal:
        patience = threading.Timer(COUNT_SECONDS, journal.kill)
        patience.start()
        for line in journal.stdout or ():
            read += 1
            # The last line may have been cut off.
            with contextlib.suppress(*GARBAGE):
                entry = json.loads(line.decode(errors="replace"))
                failed[entry["app"]] += entry["status"] >= 500
                counted[entry["app"]] += 1
                oldest = entry["time"]
    patience.cancel()
    whole, seconds = journal.returncode != -signal.SIGKILL and read < MOST_LINES, WINDOW_SECONDS
    if not whole:
        with contextlib.suppress(*GARBAGE):
            seconds = max(1, round((_now() - datetime.datetime.fromisoformat(oldest)).total_seconds()))
    return Requests(seconds, whole, counted, failed)


def add_requests(app: dict[str, Any], requests: Requests | None) -> None:
    """Add to an app how many requests it had and how many of them failed, and what is amiss with that."""
    answered = requests.counted[app["name"]] if requests else None
    failed = requests.failed[app["name"]] if requests else None
    app.update(requests=answered, errors=failed)
    if answered and failed and failed >= max(FEWEST_ERRORS, TOO_MANY_ERRORS * answered):
        app["problems"].append(f"{failed:,} of {answered:,} requests failed")


def certificate_of(layout: Layout) -> tuple[int | None, list[str]]:
    """For how many days the certificate of an app is good, and what is amiss with it."""
    pair = Realm(layout.root / "etc/slipway/certificates", layout.name).pair()
    if pair is None:
        return None, ["it has no certificate; playbooks/site.yml brings one"]
    try:
        certificate = inspect(pair.fullchain)
    except Refused as error:
        return None, [f"its certificate cannot be read: {error}"]
    problems = []
    left, life = certificate.not_after - _now(), certificate.not_after - certificate.not_before
    if left < datetime.timedelta():
        problems.append(f"its certificate expired on {told(certificate.not_after.timestamp())}")
    elif left < min(LEFT, life / LEFT_OF_LIFE):
        problems.append(f"its certificate expires in {left.days} days")
    desk = Desk(layout.root)
    outcome = desk.outcomes().get(layout.name)
    if outcome and desk.wishes_for(layout.name):
        domains = Wish.of(desk.wish(layout.name).read_text()).domains
        # A renewal that has failed is none of this: it is tried again, twice a day, and there is time.
        if pair.is_self_signed or set(domains) - set(certificate.names):
            problems += [f"no certificate of its CA: {message}" for message in outcome.messages]
    return left.days, problems


def disk_of(path: Path) -> dict[str, int]:
    """Size and what is left of the file system on which a path is, or would be, in bytes, and how full it is."""
    usage = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists()))
    # Rounded up, as df does.
    return {"size": usage.total, "free": usage.free, "percent": -(-100 * usage.used // (usage.used + usage.free))}


def reboot_pending_since(root: Path) -> float | None:
    """Since when a host waits for a restart, in seconds of the epoch, or None.

    Debian's unattended-upgrades leaves a file where it has installed a kernel; Ubuntu does after other packages, too.
    Whoever has no such package finds a kernel all the same that was installed since the host has started.
    """
    noted = root / "run/reboot-required"
    if noted.exists():
        return noted.stat().st_mtime
    started = re.search(r"^btime (\d+)", (root / "proc/stat").read_text(), re.MULTILINE)
    kernels = (path.stat().st_ctime for path in (root / "boot").glob("vmlinuz-*"))
    return min((when for when in kernels if started and when > int(started[1])), default=None)


def told(seconds: float) -> str:
    """A time in seconds of the epoch, in UTC, for a reader."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


if __name__ == "__main__":
    main()
