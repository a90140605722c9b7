"""The bill of materials of a release: what it says, and that it says the same for the same packages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.asgi.plugins.module_utils import sbom

DIGESTS = [character * 64 for character in "abcdef"]
LOCK = f"""
[[package]]
name = "fast-thing"
wheels = [
    {{ url = "/fast_thing-1.0-cp313-cp313-macosx_11_0_arm64.whl", hash = "sha256:{DIGESTS[0]}", size = 1 }},
    {{ url = "/fast_thing-1.0-cp313-cp313-linux_x86_64.manylinux2014_x86_64.whl", hash = "sha256:{DIGESTS[1]}" }},
    {{ url = "/fast_thing-0.9-cp313-cp313-linux_x86_64.manylinux2014_x86_64.whl", hash = "sha256:{DIGESTS[2]}" }},
]
[[package]]
name = "local"
sdist = {{ url = "https://x/local-2.0.tar.gz", hash = "sha256:{DIGESTS[3]}", size = 1 }}
wheels = [{{ path = "local-2.0%2Bcpu-py3-none-any.whl", hash = "sha256:{DIGESTS[4]}" }}]
"""


def install(packages: Path, name: str, version: str, metadata: str = "", *tags: str) -> None:
    """Lay down what an installer leaves of a package."""
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {name.replace('_', '.')}\nVersion: {version}\n{metadata}"
    )
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release with packages in its environment and in Slipway's server."""
    path = tmp_path / "3f9a1c20b7de"
    packages = path / ".venv/lib/python3.13/site-packages"
    manylinux = [f"cp313-cp313-{name}" for name in ("manylinux2014_x86_64", "linux_x86_64")]
    install(packages, "fast_thing", "1.0", "License-Expression: MIT OR Apache-2.0\n", *manylinux)
    install(packages, "local", "2.0+cpu", "License: BSD\n", "py3-none-any")
    install(path / "server", "fast_thing", "0.8", "Classifier: License :: OSI Approved :: ISC License (ISCL)\n")
    (path / "src").mkdir()
    (path / "src/uv.lock").write_text(LOCK)
    (path / "server.txt").write_text(f"# made\nfast.thing==0.8 \\\n    --hash=sha256:{DIGESTS[5]}\n    # via x\n")
    return path


def written(release: Path) -> dict[str, Any]:
    sbom.main(str(release), "shop")
    found: dict[str, Any] = json.loads((release / "sbom.json").read_text())
    return found


def packages_of(release: Path) -> dict[str, dict[str, Any]]:
    return {entry["bom-ref"]: entry for entry in written(release)["components"] if "purl" in entry}


def test_names_all_that_is_installed_and_where(release: Path) -> None:
    found = packages_of(release)
    assert list(found) == [
        ".venv/pkg:pypi/fast-thing@1.0",
        ".venv/pkg:pypi/local@2.0%2Bcpu",
        "server/pkg:pypi/fast-thing@0.8",
    ]
    own, local, server = found.values()
    assert (own["name"], own["version"]) == ("fast.thing", "1.0")
    assert (local["version"], local["purl"]) == ("2.0+cpu", "pkg:pypi/local@2.0%2Bcpu")
    assert server["properties"] == [{"name": "slipway:directory", "value": "server"}]


def test_names_licenses_however_a_package_says_them(release: Path) -> None:
    own, local, server = packages_of(release).values()
    assert own["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert local["licenses"] == [{"license": {"name": "BSD"}}]
    assert server["licenses"] == [{"license": {"name": "ISC License (ISCL)"}}]
    # No name of a license, but its text.
    long = {"license": ["Permission is hereby granted, " * 9], "classifier": ["License :: OSI Approved", "Topic :: X"]}
    assert sbom.licenses(long) == []


def test_has_the_hash_of_the_lock_where_that_names_one_file(release: Path) -> None:
    own, local, server = packages_of(release).values()
    assert own["hashes"] == [{"alg": "SHA-256", "content": DIGESTS[1]}]
    assert local["hashes"] == [{"alg": "SHA-256", "content": DIGESTS[4]}]
    assert server["hashes"] == [{"alg": "SHA-256", "content": DIGESTS[5]}]
    (release / "server.txt").write_text(f"fast-thing==0.8 --hash=sha256:{DIGESTS[0]} --hash=sha256:{DIGESTS[1]}\n")
    (release / "src/uv.lock").unlink()
    (release / "src/requirements.txt").write_text(f"local --hash=sha256:{DIGESTS[2]}\nfast-thing\n--no-index\n")
    own, local, server = packages_of(release).values()
    assert local["hashes"] == [{"alg": "SHA-256", "content": DIGESTS[2]}]
    assert "hashes" not in own and "hashes" not in server


def test_is_what_cyclonedx_asks_for(release: Path) -> None:
    """By the JSON schema of CycloneDX 1.6: what it requires, and no value of another form."""
    found = written(release)
    assert set(found) == {"bomFormat", "specVersion", "version", "metadata", "components"}
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    entries = [found["metadata"]["component"], *found["components"]]
    assert entries[0] == {"type": "application", "bom-ref": "app", "name": "shop", "version": "3f9a1c20b7de"}
    assert [entry["name"] for entry in entries if entry["type"] == "platform"] == ["Python"]
    assert len({entry["bom-ref"] for entry in entries}) == len(entries)
    known = {"type", "bom-ref", "name", "version", "purl", "licenses", "hashes", "properties"}
    for entry in entries:
        assert {"type", "bom-ref", "name", "version"} <= set(entry) <= known
        assert entry["type"] in ("application", "library", "platform")
        assert all(re.fullmatch(r"[0-9a-f]{64}", one["content"]) for one in entry.get("hashes", []))
        assert all(set(one) in ({"expression"}, {"license"}) for one in entry.get("licenses", []))


def test_is_the_same_for_the_same_packages(release: Path, tmp_path: Path) -> None:
    written(release)
    text = (release / "sbom.json").read_text()
    other = tmp_path / "other" / release.name
    other.parent.mkdir()
    # In another order, and at another time.
    for path in sorted(release.rglob("*"), reverse=True):
        if path.is_file():
            (other / path.relative_to(release)).parent.mkdir(parents=True, exist_ok=True)
            (other / path.relative_to(release)).write_bytes(path.read_bytes())
    written(other)
    assert (other / "sbom.json").read_text() == text


def test_bears_whatever_a_package_has_left(release: Path) -> None:
    packages = release / ".venv/lib/python3.13/site-packages"
    for path in packages.glob("local-*"):
        (path / "METADATA").write_bytes(b": x\nName\n\xff: \xff\nLicense: \xff\n continued\n\nName: body\n")
        (path / "WHEEL").unlink()
    (packages / "nameless.dist-info").mkdir()
    (release / "src/uv.lock").write_bytes(b'\xff url = "x.whl", hash = "sha256:0"')
    local = packages_of(release)[".venv/pkg:pypi/local@2.0%2Bcpu"]
    assert local["name"] == "local" and "hashes" not in local
