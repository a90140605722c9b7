"""Sets of files that change as one: generations of a directory, and one link that names the current one.

A generation is written beside the others, synced, and only then does a single rename of the link make it current, so
that a reader, a crash or a power cut meets either the whole old set or the whole new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import hashlib
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STAGING = ".staging-"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a set.

    Attributes:
        path: where it lies, relative to the generation, or absolute for a file outside of any.
        content: its bytes.
        mode: its permission bits, for example ``0o644``.
        owner: the user that owns it.
        group: the group that owns it.
    """

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> File:
        """Build a file from a module's ``files`` entry, whose mode is an octal string such as ``"0640"``."""
        return cls(
            path=entry["path"],
            content=entry["content"].encode(),
            mode=int(entry["mode"], 8),
            owner=entry.get("owner") or "root",
            group=entry.get("group") or "root",
        )

    @property
    def ids(self) -> tuple[int, int]:
        """The numbers of its user and group; ``LookupError`` names one that this host does not have."""
        try:
            return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError as error:
            raise LookupError(f"{self.path}: {error.args[0]}") from error


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What it takes to know a file again without its content: SHA-256 in hexadecimal, mode, user and group number."""

    sha256: str
    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, file: File) -> Fingerprint:
        """The fingerprint that ``file`` will have once written; ``LookupError`` where an owner is unknown here."""
        return cls(digest(file.content), file.mode, *file.ids)

    def fits(self, path: Path) -> bool:
        """Whether a regular file with this content, mode and owners lies at ``path``."""
        try:
            found = path.lstat()
            return (
                stat.S_ISREG(found.st_mode)
                and (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (self.mode, self.uid, self.gid)
                and digest(path.read_bytes()) == self.sha256
            )
        except OSError:
            return False


def lies_at(file: File, path: Path) -> bool:
    """Whether ``path`` is a regular file with the content, mode and owners of ``file``."""
    try:
        return Fingerprint.of(file).fits(path)
    except LookupError:
        return False


def sync_directory(path: Path) -> None:
    """Make renames within a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(file: File, path: Path) -> None:
    """Put a file in place with one rename; a reader sees the old content or the new, never a part."""
    owners = file.ids
    make_directory(path.parent)
    staged = path.with_name(f"{STAGING}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        staged.unlink()
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchown(handle, *owners)
            os.fchmod(handle, file.mode)
            stream.write(file.content)
            stream.flush()
            os.fsync(handle)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        # A disk that is full does not say which.
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory and its missing parents, whatever the umask."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode)
        parent.chmod(mode)


def point(link: Path, target: str) -> None:
    """Let a link name ``target`` with one rename.

    Args:
        link: the link, which need not exist; a directory in its place, as a copy that follows links makes it, is moved
            aside.
        target: what it shall name, best relative to it.
    """
    staged = link.with_name(f"{STAGING}{link.name}")
    with contextlib.suppress(FileNotFoundError):
        staged.unlink()
    staged.symlink_to(target)
    if link.is_dir() and not link.is_symlink():
        link.rename(link.with_name(f"{link.name}.{time.time_ns()}"))
    staged.replace(link)
    sync_directory(link.parent)


class Generations:
    """The generations of one set of files, numbered from 1, and the link to the current one.

    Args:
        store: the directory that holds the generations.
        link: the link that names the current one; it may lie anywhere on the same host.
    """

    def __init__(self, store: Path, link: Path) -> None:
        self.store = store
        self.link = link

    def current(self) -> Path | None:
        """The directory that the link names, or None where there is none."""
        try:
            target = self.link.parent / os.readlink(self.link)
        except OSError:
            return None
        return target if target.is_dir() else None

    def before(self) -> dict[str, str]:
        """The text of each file of the current generation, by its path; for a diff."""
        return {path: content.decode(errors="replace") for path, content in _contents(self.current()).items()}

    def differing(self, wanted: Mapping[str, Fingerprint]) -> list[str]:
        """The paths of the current generation that are edited, missing or too many; none where it is this very set."""
        current = self.current()
        found = set(_contents(current))
        return sorted(
            path
            for path in found | set(wanted)
            if current is None or path not in wanted or not wanted[path].fits(current / path)
        )

    def stage(self, files: Iterable[File], private: Iterable[str] = ()) -> Path:
        """Write a new generation, complete and synced, without making it current.

        Args:
            files: the whole set, with paths relative to the generation.
            private: directories within it that only root may enter.

        Returns:
            The new generation's directory.
        """
        make_directory(self.store)
        for left in self.store.glob(f"{STAGING}*"):
            shutil.rmtree(left)
        number = 1 + max((int(path.name) for path in self.store.iterdir() if path.name.isdigit()), default=0)
        staged = self.store / f"{STAGING}{number}"
        make_directory(staged)
        try:
            for name in private:
                make_directory(staged / name, 0o700)
            for file in files:
                write(file, staged / file.path)
        except OSError:
            # A disk that is full has no room for half a set.
            shutil.rmtree(staged)
            raise
        generation = self.store / str(number)
        staged.rename(generation)
        sync_directory(self.store)
        return generation

    def activate(self, generation: Path) -> None:
        """Make a staged generation current, with one rename of the link."""
        make_directory(self.link.parent)
        point(self.link, os.path.relpath(generation, self.link.parent))

    def prune(self, keep: Iterable[Path]) -> None:
        """Remove every generation that is neither current nor in ``keep``."""
        kept = {path.resolve() for path in (*keep, self.current()) if path is not None}
        for path in self.store.iterdir():
            if path.name.isdigit() and path.resolve() not in kept:
                shutil.rmtree(path)

    def newest(self, count: int) -> list[Path]:
        """The ``count`` generations with the highest numbers, newest first."""
        numbers = sorted((int(path.name) for path in self.store.iterdir() if path.name.isdigit()), reverse=True)
        return [self.store / str(number) for number in numbers[:count]]


def read_all(directory: Path, names: Iterable[str] | None = None) -> list[File]:
    """The files of a generation as they lie on the disk; only these where names are given."""
    files = []
    contents = _contents(directory) if names is None else {name: (directory / name).read_bytes() for name in names}
    for name, content in contents.items():
        found = (directory / name).lstat()
        owner, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
        files.append(File(name, content, stat.S_IMODE(found.st_mode), owner, group))
    return files


def digest(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _contents(directory: Path | None) -> dict[str, bytes]:
    if directory is None:
        return {}
    return {
        str(path.relative_to(directory)): os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() or path.is_symlink()
    }
