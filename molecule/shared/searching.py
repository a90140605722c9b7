"""Looks for a marker of letters and digits, which stays what it is in quotes, in JSON, in YAML and in a URL.

It is also found in base64, in hexadecimal, and in what gzip, bzip2, xz and zip have packed. On a host this is a
program: its arguments are ``files`` and directories, or ``output`` and a command, and it reads the marker from its
input, or it would find itself.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import dataclasses
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

# The kernel's own file systems are looked through where they are asked for. Some of their files have no end.
KERNEL = ("/proc", "/sys")
KERNEL_LIMIT = 1 << 20
UNPACKERS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclasses.dataclass
class Searched:
    """What was looked through.

    Attributes:
        places: how many files, or outputs.
        size: how many bytes in all.
        found: where the marker is.
    """

    places: int = 0
    size: int = 0
    found: list[str] = dataclasses.field(default_factory=list)

    def add(self, name: str, data: bytes, needles: Sequence[bytes]) -> None:
        """Look through one more."""
        self.places += 1
        self.size += len(data)
        if any(needle in text for text in unpacked(data) for needle in needles):
            self.found.append(name)


def forms(marker: str) -> list[bytes]:
    """What a marker may look like."""
    plain = marker.encode()
    found = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    for before in range(3):
        # Of the characters at either end some bits belong to what stands around it.
        encoded = base64.b64encode(b"\0" * before + plain)[(before * 8 + 5) // 6 : (before + len(plain)) * 8 // 6]
        found += {encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def unpacked(data: bytes) -> Iterator[bytes]:
    """What data holds: itself, and what is packed in it."""
    yield data
    for magic, unpack in UNPACKERS.items():
        if data.startswith(magic):
            with contextlib.suppress(*BROKEN):
                yield unpack(data)
    if data.startswith(b"PK\x03\x04"):
        with contextlib.suppress(*BROKEN), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)


def files(directories: Sequence[str | Path], needles: Sequence[bytes]) -> Searched:
    """Look through all files beneath directories that can be read; one with several names is looked at once."""
    searched, seen = Searched(), set()
    for directory in map(str, directories):
        for path, children, names in os.walk(directory):
            children[:] = [child for child in children if os.path.join(path, child) not in KERNEL]
            for name in names:
                full = os.path.join(path, name)
                with contextlib.suppress(OSError):
                    status = os.lstat(full)
                    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    limit = KERNEL_LIMIT if full.startswith(KERNEL) else -1
                    with open(os.open(full, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
                        searched.add(full, stream.read(limit), needles)
    return searched


def output(command: Sequence[str], needles: Sequence[bytes]) -> Searched:
    """Look through what a command prints."""
    searched = Searched()
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout
    searched.add(" ".join(command), said, needles)
    return searched


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    search = {"files": files, "output": output}[what]
    print(json.dumps(dataclasses.asdict(search(rest, forms(sys.stdin.read())))))
