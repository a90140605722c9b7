"""What a host is, printed as JSON: its files, units, users, packages, tables of nftables and limits of the kernel.

It runs on the host, with the standard library alone.
"""

import contextlib
import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# What runs by the name of its unit; the rest comes and goes with what is mounted and plugged in.
KINDS = "--type=service,socket,timer,path,target"


def files() -> Iterator[tuple[str, str]]:
    """Each path with its kind, mode, owners, and the hash of its content or where it leads."""
    disk = Path("/").lstat().st_dev
    for directory, names, others in os.walk("/"):
        # Of what is mounted elsewhere, such as /proc or /tmp, nothing is on the disk.
        names[:] = [name for name in names if Path(directory, name).lstat().st_dev == disk]
        for name in [*names, *others]:
            path = Path(directory, name)
            found = path.lstat()
            content = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            owners = f"{_name(pwd.getpwuid, found.st_uid)}:{_name(grp.getgrgid, found.st_gid)}"
            yield str(path), f"{stat.filemode(found.st_mode)} {owners} {content}"


def limits() -> Iterator[tuple[str, str]]:
    """Each setting of the kernel that can be read."""
    for path in sorted(Path("/proc/sys").rglob("*")):
        if path.is_file():
            with contextlib.suppress(OSError):
                yield str(path.relative_to("/proc/sys")), path.read_text(errors="replace").strip()


def lines(*command: str, separator: str = " ", columns: int | None = None) -> dict[str, str]:
    """What a command prints, a line each, by the first of its columns."""
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [line.replace(separator, " ").split()[:columns] for line in shown.splitlines()]
    return {line[0]: " ".join(line[1:]) for line in found if line}


def _name(look: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(look(number)[0])
    except KeyError:
        return str(number)


def main() -> None:
    """Print it all."""
    listed = ("--plain", "--no-legend", "--no-pager", KINDS)
    found = {
        "file": dict(files()),
        "unit file": lines("systemctl", "list-unit-files", *listed),
        "active unit": lines("systemctl", "list-units", "--state=active,failed", *listed, columns=4),
        "user": lines("getent", "passwd", separator=":"),
        "group": lines("getent", "group", separator=":"),
        "package": lines("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Status}\\n"),
        "table": lines("sh", "-c", "! command -v nft >/dev/null || nft --stateless list ruleset | nl"),
        "limit": dict(limits()),
    }
    json.dump(found, sys.stdout)


main()
