"""Writes what is installed in a release to sbom.json. A build runs its text with the release's own Python, in the
sandbox: python -IS -c TEXT RELEASE NAME

It is CycloneDX 1.6 in JSON, and the same for the same packages: no time, no serial number, all of it sorted. What it
says is read from what is there, not from a lock, which may have more than this machine needs, or be missing. Only a
package's hash is the lock's, where that leaves no doubt about which file was installed.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

# A name, a version, and what a wheel was made for, as pip names it: Python, ABI and platform.
Wheel = tuple[str, str, frozenset[str]]
# More than this is no name of a license but its text.
LONGEST_LICENSE = 100


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: Path) -> str:
    """The text of a file that others have written; nothing where there is none."""
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def headers(path: Path) -> dict[str, list[str]]:
    """The headers of a metadata file, by their names in lower case, without the lines in which they go on."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", read(path).partition("\n\n")[0], re.MULTILINE):
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def licenses(metadata: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The licenses that a package names, as CycloneDX has them."""
    if "license-expression" in metadata:
        return [{"expression": metadata["license-expression"][0]}]
    classified = [text.split(" :: ") for text in metadata.get("classifier", []) if text.startswith("License :: ")]
    names = {text[-1] for text in classified if text[-1] != "OSI Approved"}
    names = names or {text for text in metadata.get("license", []) if 0 < len(text) <= LONGEST_LICENSE}
    return [{"license": {"name": name}} for name in sorted(names)]


def locked_wheels(lock: str) -> dict[Wheel, str]:
    """The SHA-256 of each wheel of a uv.lock.

    Its lines are searched: to parse all of it takes seconds where there are many packages.
    """
    found = {}
    wheel = r'(?:url|path|filename) = "(?:[^"]*/)?((?:[^"/-]+-){4,5}[^"/-]+)\.whl", hash = "sha256:([0-9a-f]{64})"'
    for file, digest in re.findall(wheel, lock):
        name, version, *_, python, abi, machine = unquote(file).split("-")
        tags = product(python.split("."), abi.split("."), machine.split("."))
        found[normal(name), version, frozenset(map("-".join, tags))] = digest
    return found


def pinned_files(requirements: str) -> dict[str, str]:
    """The SHA-256 of each package of which a requirements file allows one file alone."""
    hashes: dict[str, set[str]] = {}
    for line in requirements.replace("\\\n", " ").splitlines():
        if match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line):
            hashes.setdefault(normal(match[0]), set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return {name: digests.pop() for name, digests in hashes.items() if len(digests) == 1}


def components(packages: Path, directory: str, lock: Path) -> Iterator[dict[str, Any]]:
    """What is installed in a directory.

    Args:
        packages: the directory.
        directory: what it is called in the release.
        lock: the uv.lock or the requirements file that it was installed from.
    """
    wheels = locked_wheels(read(lock)) if lock.suffix == ".lock" else {}
    files = pinned_files(read(lock)) if lock.suffix == ".txt" else {}
    for path in packages.glob("*-*.dist-info"):
        name, _, version = path.stem.partition("-")
        metadata = headers(path / "METADATA")
        tags = frozenset(headers(path / "WHEEL").get("tag", []))
        digest = wheels.get((normal(name), version, tags)) or files.get(normal(name))
        purl = f"pkg:pypi/{normal(name)}@{quote(version, safe='')}"
        component = {
            "type": "library",
            "bom-ref": f"{directory}/{purl}",
            "name": metadata.get("name", [name])[0],
            "version": version,
            "purl": purl,
            "licenses": licenses(metadata),
            "hashes": [{"alg": "SHA-256", "content": digest}] if digest else [],
            "properties": [{"name": "slipway:directory", "value": directory}],
        }
        yield {key: value for key, value in component.items() if value}


def bill(release: Path, name: str) -> dict[str, Any]:
    """The bill of materials of a release of an app."""
    lock = release / "src" / ("uv.lock" if (release / "src/uv.lock").is_file() else "requirements.txt")
    found = list(components(release / "server", "server", release / "server.txt"))
    for packages in release.glob(".venv/lib/python*/site-packages"):
        found += components(packages, ".venv", lock)
    python = {"type": "platform", "bom-ref": "python", "name": "Python", "version": platform.python_version()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "app", "name": name, "version": release.name}},
        "components": [python, *sorted(found, key=lambda component: str(component["bom-ref"]))],
    }


def main(release: str, name: str) -> None:
    """Write it."""
    text = json.dumps(bill(Path(release), name), indent=1)
    Path(release, "sbom.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
