"""An app's source on the controller: which files it has, what identifies them, and the archive that is sent."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

# What is no part of a source even where git does not say so.
IGNORED = {".git", ".venv", "__pycache__"}


def files_of(directory: Path) -> list[str]:
    """The files of a source, sorted: what git tracks or would add, or everything where there is no git."""
    listed = subprocess.run(
        ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        names = [
            os.path.relpath(os.path.join(parent, name), directory)
            for parent, directories, files in os.walk(directory)
            for name in files + [entry for entry in directories if os.path.islink(os.path.join(parent, entry))]
        ]
    present = {name for name in names if os.path.lexists(directory / name) and not (directory / name).is_dir()}
    present |= {name for name in names if (directory / name).is_symlink()}
    return sorted(name for name in present if not IGNORED & set(Path(name).parts))


def digest_of(directory: Path) -> str:
    """The SHA-256 of a source: names, contents and executable bits, no times and no owners."""
    total = hashlib.sha256()
    for name in files_of(directory):
        path = directory / name
        if path.is_symlink():
            kind, content = "link", os.fsencode(os.readlink(path))
        else:
            kind, content = "program" if os.access(path, os.X_OK) else "file", path.read_bytes()
        total.update(f"{kind} {name}\0{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def archive(directory: Path, target: Path) -> None:
    """Write the source as a tar file in which all that is not its content is normalised."""

    def normalised(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.mode & 0o100 else 0o644
        return entry

    with tarfile.open(target, "w") as tar:
        for name in files_of(directory):
            tar.add(directory / name, arcname=name, recursive=False, filter=normalised)
