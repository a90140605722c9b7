"""The distribution's packages that came with Slipway, and which of them can go again."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, run

# Written by the role host when it installs: what came with it, and while it is at that, what was there before.
RECORD = Path("/var/lib/slipway/.packages")
BEFORE = Path("/var/lib/slipway/.packages.before")
# Seconds for which apt waits until another program has done with dpkg.
LOCK_SECONDS = 300


def installed() -> set[str]:
    """The packages of this host."""
    shown = run(["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n"])
    return {name for status, _, name in (line.partition(" ") for line in shown.splitlines()) if status == "installed"}


def came() -> set[str]:
    """Those that an installation by Slipway has brought, also one that was cut off, and that are still there."""
    present = installed()
    noted = set(RECORD.read_text().split()) if RECORD.exists() else set()
    if BEFORE.exists():
        noted |= present - set(BEFORE.read_text().split())
    return noted & present


def removable(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort what came with Slipway.

    Args:
        patterns: shell patterns of the names that are meant.

    Returns:
        What can be purged, and what has to stay because something needs it that Slipway did not bring.
    """
    meant = {name for name in came() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    going = set(meant)
    while going:
        further = _also_concerned(going) - going
        if not further:
            break
        # Where nothing says why, all stay.
        going -= (_needs(further) & going) or going
    return sorted(going), sorted(meant - going)


def purge(names: Sequence[str]) -> None:
    """Purge packages, and stop those of their services that they leave running.

    Raises:
        Failed: apt could not.
    """
    listed = run(["dpkg-query", "--listfiles", *names])
    services = re.findall(r"/systemd/system/([^/@\n]+\.service)$", listed, re.MULTILINE)
    run(
        ["apt-get", "--quiet", "--yes", f"--option=DPkg::Lock::Timeout={LOCK_SECONDS}", "purge", *names],
        what=f"the removal of {' '.join(names)}",
        environment={"DEBIAN_FRONTEND": "noninteractive"},
    )
    if services:
        # It says so of each that does not run.
        with contextlib.suppress(Failed):
            run(["systemctl", "--quiet", "stop", *services])


def _also_concerned(names: Iterable[str]) -> set[str]:
    """The packages that apt would remove or install if these went."""
    shown = run(["apt-get", "--simulate", "purge", *sorted(names)])
    return set(re.findall(r"^(?:Purg|Remv|Inst) ([^\s:]+)", shown, re.MULTILINE))


def _needs(names: Iterable[str]) -> set[str]:
    """All that these packages depend on, directly or not, as far as it is installed."""
    shown = run(["apt-cache", "--recurse", "--installed", "--important", "depends", *sorted(names)])
    return set(re.findall(r"^([^\s<:]+)", shown, re.MULTILINE))
