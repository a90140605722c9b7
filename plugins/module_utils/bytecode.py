"""Compiles the packages of a release. A build runs its text with the release's own Python, in the sandbox:

python -IS -c TEXT PROCESSES RELEASE BEFORE

What the release BEFORE has in the very same words is taken from there: most deploys change no package, and compiling
them all would take more CPU time than the rest of a build.
"""

from __future__ import annotations

import compileall
import contextlib
import filecmp
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

# With fewer modules to compile, starting more processes takes longer than it saves.
FEW = 100


def packages(release: Path) -> Iterator[Path]:
    """The directories of a release that hold packages: of its virtual environment, and of Slipway's server."""
    yield from release.glob(".venv/lib/python*/site-packages")
    yield release / "server"


def take_over(directory: Path, before: Path) -> int:
    """Take compiled modules from a directory of the release before.

    Args:
        directory: where the sources are.
        before: where the sources of the release before are, with what they were compiled to.

    Returns:
        How many modules are still to be compiled.
    """
    left = 0
    for source in directory.rglob("*.py"):
        left += 1
        old = before / source.relative_to(directory)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if filecmp.cmp(source, old, shallow=False):
                compiled = Path(cache_from_source(str(source)))
                compiled.parent.mkdir(exist_ok=True)
                shutil.copyfile(cache_from_source(str(old)), compiled)
                # Python takes what was compiled from a source of this time and size, and no other.
                time = old.stat().st_mtime_ns
                os.utime(source, ns=(time, time))
                left -= 1
    return left


def main(processes: str, release: str, before: str) -> None:
    """Compile what is not there, and let be what cannot be compiled."""
    found = {part: part.relative_to(release) for part in packages(Path(release)) if part.is_dir()}
    left = sum(take_over(part, Path(before) / relative) for part, relative in found.items())
    for part in found:
        compileall.compile_dir(part, quiet=2, workers=int(processes) if left > FEW else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
