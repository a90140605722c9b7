"""How many workers a server gets, from a file system that says what its unit has."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import slipway_sizing

GIGABYTE = 10**9


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 CPUs and 16 GB, whose unit has a cgroup without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 16 * GIGABYTE // 1000}.get)
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/shop.service\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/shop.service/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/shop.service/memory.max", "max\n")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_one_for_each_cpu(host: Path) -> None:
    assert slipway_sizing.size("loops", root=host) == (8, 1, "one for each of 8 CPUs")
    assert slipway_sizing.size("threads", root=host) == (8, 4, "one for each of 8 CPUs")
    assert slipway_sizing.size("process", root=host) == (1, 32, "a single process, on 8 CPUs")


def test_what_is_wanted_is_taken(host: Path) -> None:
    assert slipway_sizing.size("loops", "3", root=host) == (3, 1, "as the inventory says")
    assert slipway_sizing.size("threads", "3", "16", root=host) == (3, 16, "as the inventory says")
    assert slipway_sizing.size("process", threads="16", root=host).threads == 16


def test_a_set_of_cpus(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert slipway_sizing.size("loops", root=host) == (2, 1, "2 at least, on 1 CPU")
    assert slipway_sizing.size("process", root=host).threads == 8


@pytest.mark.parametrize("path", ["system.slice/shop.service", "system.slice", "."])
def test_a_quota_of_the_unit_or_of_what_it_is_in(host: Path, path: str) -> None:
    write(host, f"sys/fs/cgroup/{path}/cpu.max", "250000 100000\n")
    assert slipway_sizing.size("loops", root=host) == (3, 1, "one for each of 2.5 CPUs")


@pytest.mark.parametrize(("path", "share"), [("system.slice/shop.service", 1), ("system.slice", 2), (".", 2)])
def test_the_memory_of_the_unit_or_of_what_it_is_in(host: Path, path: str, share: int) -> None:
    write(host, f"sys/fs/cgroup/{path}/memory.max", f"{share * GIGABYTE // 2}\n")
    assert slipway_sizing.size("loops", root=host) == (5, 1, "as many as 500 MB carry, on 8 CPUs")
    write(host, f"sys/fs/cgroup/{path}/memory.max", "50000000\n")
    assert slipway_sizing.size("threads", root=host).workers == 1
    assert slipway_sizing.size("loops", "4", root=host).workers == 4


def test_half_of_a_small_machine(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": GIGABYTE // 1000}.get)
    assert slipway_sizing.size("loops", root=host).workers == 5


def test_the_first_version_of_cgroups(host: Path) -> None:
    write(host, "proc/self/cgroup", "4:cpu,cpuacct:/system.slice\n3:memory:/system.slice\n1:name=systemd:/x\n")
    write(host, "sys/fs/cgroup/cpu/system.slice/cpu.cfs_quota_us", "-1\n")
    write(host, "sys/fs/cgroup/cpu/system.slice/cpu.cfs_period_us", "100000\n")
    write(host, "sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes", "9223372036854771712\n")
    assert slipway_sizing.size("loops", root=host).workers == 8
    # In a container, what is named is the host's, and what is there is the container's own.
    write(host, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "600000\n")
    assert slipway_sizing.size("loops", root=host).workers == 8
    write(host, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert slipway_sizing.size("loops", root=host).workers == 6
    write(host, "sys/fs/cgroup/cpu/system.slice/cpu.cfs_quota_us", "400000\n")
    assert slipway_sizing.size("loops", root=host).workers == 4
    write(host, "sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes", str(3 * slipway_sizing.WORKER_BYTES))
    assert slipway_sizing.size("loops", root=host).workers == 3


def test_cgroups_that_are_not_to_be_seen(host: Path) -> None:
    write(host, "proc/self/cgroup", "0::/../../elsewhere (deleted)\n")
    assert slipway_sizing.size("loops", root=host) == (8, 1, "one for each of 8 CPUs")


def test_it_is_noted_where_the_unit_runs_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = slipway_sizing.size("loops")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    slipway_sizing.note(found)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    slipway_sizing.note(found)
    assert json.loads((tmp_path / "sizing").read_text()) == found._asdict()
    assert found.workers >= slipway_sizing.LEAST_WORKERS
