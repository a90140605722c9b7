"""Disks that are full, at each stage of a deploy: it is refused and says so, and with room it goes through."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deploying import CONFIGURATION, HOME
from disks import small_disk, small_releases
from faulting import FULL, Faults
from hosts import APP

# Of which the units know, so that they are written anew.
READY_SECONDS = itertools.count(21)


@contextlib.contextmanager
def tiny(faults: Faults, path: str, size: str) -> Iterator[None]:
    """Lay an empty disk of a size over a directory."""
    faults.inside(f"mkdir -p {path} && mount -t tmpfs -o size={size} tmpfs {path}")
    try:
        yield
    finally:
        faults.inside(f"umount --lazy {path}")


def sizes(faults: Faults) -> tuple[int, int]:
    """How many KiB the live release takes, and how many of them what is compiled."""
    whole = faults.inside(f"du --summarize -k {HOME}/live/release/ | cut -f 1")
    compiled = faults.inside(f"find {HOME}/live/release/ -name '*.pyc' -printf '%k\\n'")
    return int(whole), sum(map(int, compiled.split()))


def while_building(faults: Faults, soak: bool) -> dict[str, tuple[str, Callable[[], Any]]]:
    """By the stage at which there is no room: how that comes to be, and what makes it so."""
    whole, compiled = sizes(faults)

    def room(kib: int) -> tuple[str, Callable[[], Any]]:
        return f"{kib} KiB for the new release", lambda: small_releases(faults.container, f"{kib}k")

    stages: dict[str, tuple[str, Callable[[], Any]]] = {
        "the source is sent": ("16 KiB at /root/.ansible", lambda: tiny(faults, "/root/.ansible", "16k")),
        "the source arrives": room(64),
        "packages are fetched": (
            f"1 MiB at /var/cache/slipway/{APP}",
            lambda: tiny(faults, f"/var/cache/slipway/{APP}", "1m"),
        ),
        "the environment is made": room((whole - compiled) // 2),
        "it is compiled": room(whole - compiled // 2),
    }
    if soak:
        for share in (10, 25, 75, 90):
            stages[f"{share} % of the environment is made"] = room((whole - compiled) * share // 100)
        for share in (15, 30, 70):
            stages[f"{share} % of it is compiled"] = room(whole - compiled * (100 - share) // 100)
    return stages


def test_while_a_release_is_built(faults: Faults, soak: bool) -> None:
    wanted = faults.deploys.release()
    rows = []
    for stage, (how, full) in while_building(faults, soak).items():
        with faults.fault(f"disk full: {stage}", how) as row:
            with full():
                row.said = faults.refused(FULL, **wanted)
            assert not faults.inside(f"find {HOME}/releases/[0-9a-f]* -prune ! -exec test -e {{}}/complete ';' -print")
            rows.append(row)
            if soak:
                faults.converges(row, **wanted)
                wanted = faults.deploys.release()
    with faults.fault("disk full while building", "the same run with room") as row:
        faults.converges(*rows, row, **wanted)


@pytest.mark.parametrize(
    ("stage", "path", "keep", "levels"),
    [
        ("its configuration is staged", CONFIGURATION, "", (0, 4, 16)),
        ("its units are installed", "/etc/systemd/system", "", (0,)),
        ("before the switch", HOME, "releases", (0,)),
    ],
)
def test_before_the_switch(
    faults: Faults, soak: bool, stage: str, path: str, keep: str, levels: tuple[int, ...]
) -> None:
    # A new configuration of the release that is live.
    wanted = {"ready_seconds": next(READY_SECONDS)}
    with small_disk(faults.container, path, keep) as free:
        rows = []
        for level in levels if soak else levels[:1]:
            with faults.fault(f"disk full: {stage}", f"{level} KiB free at {path}") as row:
                free(level)
                row.said = faults.refused(FULL, **wanted)
                assert f"'{path}/" in row.said.replace("''", "'")
                assert not faults.inside(f"find {path} -name '.staging-*'")
                rows.append(row)
        free(1024)
        with faults.fault(f"disk full: {stage}", "the same run with room") as row:
            faults.converges(row, *rows, **wanted)


def test_after_the_switch(faults: Faults) -> None:
    wanted = {"ready_seconds": next(READY_SECONDS)}
    with (
        small_disk(faults.container, HOME, "releases") as free,
        faults.fault("disk full: after the switch", f"4 KiB free at {HOME}") as row,
    ):
        # Enough to note that a switch is under way, and not that it is verified.
        free(4)
        said = rf"{FULL}; release \w+ is live, and the same run again finishes what is left"
        row.said = faults.refused(said, moved=True, **wanted)
        free(1024)
        faults.converges(row, **wanted)
