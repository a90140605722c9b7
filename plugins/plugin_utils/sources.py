"""An app's source on the controller: which files it has, what identifies them, and the archive that is sent."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

from ansible.errors import AnsibleError

# What is no part of a source even where git does not say so.
IGNORED = {".git", ".venv", "__pycache__"}


def files_of(directory: Path) -> list[str]:
    """The files of a source, sorted: what git tracks or would add, or everything where there is no git."""
    names = _listed_by_git(directory) or [
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, directories, files in os.walk(directory)
        for name in files + [entry for entry in directories if os.path.islink(os.path.join(parent, entry))]
    ]
    # Neither what is deleted but still tracked, nor sockets and the like.
    present = {name for name in names if (directory / name).is_symlink() or (directory / name).is_file()}
    return sorted(name for name in present if not IGNORED & set(Path(name).parts))


def _listed_by_git(directory: Path) -> list[str]:
    """What git lists; nothing where the directory is in no repository, or in one that ignores it as a whole."""
    if not any((parent / ".git").exists() for parent in (directory, *directory.parents)):
        return []
    command = ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=False)
        problem = listed.stderr.decode(errors="replace").strip() if listed.returncode else ""
    except FileNotFoundError:
        problem = "git is not installed"
    if problem:
        # To send everything instead would send what is ignored, such as a .env with passwords.
        raise AnsibleError(
            f"source.path {directory} is in a git repository, and git does not list its files: {problem}"
        )
    return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


def digest_of(directory: Path) -> str:
    """The SHA-256 of a source: names, contents and executable bits, no times and no owners."""
    total = hashlib.sha256()
    for name in files_of(directory):
        path = directory / name
        if path.is_symlink():
            kind, content = "link", os.fsencode(os.readlink(path))
        else:
            kind, content = "program" if path.stat().st_mode & 0o100 else "file", path.read_bytes()
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
