"""How many workers and threads a server gets: from the CPUs and the memory that its unit really has.

A worker with an event loop keeps one CPU busy, so that there is one for each CPU, and two at least: while one is
replaced, the other serves. A worker with threads is the same, with THREADS each: gunicorn's documentation advises 2 to
4 for each CPU. A server that is a single process gets the threads of all. What does not fit into the memory is not
started, but for the first.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

THREADS = 4
LEAST_WORKERS = 2
# Bytes: a small app of FastAPI's takes half of it for each worker, one with more to import all of it.
WORKER_BYTES = 100_000_000


class Size(NamedTuple):
    """What a server is started with.

    Attributes:
        workers: processes.
        threads: threads that answer requests, in each of them.
        why: the reason, for a reader.
    """

    workers: int
    threads: int
    why: str


def size(kind: str, workers: str = "auto", threads: str = "auto", root: Path = Path("/")) -> Size:
    """Say how many workers and threads a server gets.

    Args:
        kind: "loops", workers with an event loop each; "threads", workers with threads; or "process", a single one
            with threads.
        workers: how many are wanted, or "auto".
        threads: how many are wanted in each worker, or "auto".
        root: the root of the file system, another directory in tests.
    """
    cpus, limit = cpu_count(root), memory_limit(root)
    told = f"{cpus:g} CPU{'s' if cpus != 1 else ''}"
    fitting = max(LEAST_WORKERS, math.ceil(cpus))
    why = f"one for each of {told}" if cpus >= LEAST_WORKERS else f"{LEAST_WORKERS} at least, on {told}"
    if kind == "process":
        wanted, why = 1, f"a single process, on {told}"
    elif workers != "auto":
        wanted, why = int(workers), "as the inventory says"
    elif (carried := max(1, limit // WORKER_BYTES)) < fitting:
        wanted, why = carried, f"as many as {limit / 1e6:.0f} MB carry, on {told}"
    else:
        wanted = fitting
    each = 1
    if kind != "loops":
        each = int(threads) if threads != "auto" else THREADS * (fitting if kind == "process" else 1)
    return Size(wanted, each, why)


def note(found: Size) -> None:
    """Write down what the server is started with, for whoever asks on the host; the unit's check does not."""
    if directory := os.environ.get("RUNTIME_DIRECTORY"):
        Path(directory, "sizing").write_text(json.dumps(found._asdict()))


def cpu_count(root: Path = Path("/")) -> float:
    """The CPUs that this process may use: those that it may run on, or as much of them as its cgroups allow."""
    count = float(len(os.sched_getaffinity(0)))
    for directory in _cgroups(root, "cpu"):
        words = _words(directory / "cpu.max") or (
            *_words(directory / "cpu.cfs_quota_us"),
            *_words(directory / "cpu.cfs_period_us"),
        )
        if len(words) == 2 and words[0] not in ("max", "-1"):
            count = min(count, int(words[0]) / int(words[1]))
    return count


def memory_limit(root: Path = Path("/")) -> int:
    """The bytes that it may use: what its own cgroup allows, or half of one above or of the machine, for two slots."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for height, directory in enumerate(_cgroups(root, "memory")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            for word in _words(directory / name):
                limit = min(limit, int(word) // (2 if height else 1)) if word.isdigit() else limit
    return limit


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """This process' cgroup and those above it, whose limits hold for it as well."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if controllers:
            top /= controller
        if not controllers or controller in controllers.split(","):
            inner = Path(path.lstrip("/"))
            yield from (top / above for above in (inner, *inner.parents))


def _words(path: Path) -> tuple[str, ...]:
    """The words of a file, none where it is not there."""
    try:
        return tuple(path.read_text().split())
    except OSError:
        return ()
