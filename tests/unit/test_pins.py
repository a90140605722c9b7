"""All that Slipway installs is pinned by hash: a version that was tampered with is not installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "*.in"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.split()
# Every role that has commands of its own.
COMMANDS = [
    pytest.param(value, id=f"{path.parts[-3]}: {name}")
    for path in sorted(ROOT.glob("roles/*/vars/main.yml"))
    for name, value in yaml.safe_load(path.read_text()).items()
    if isinstance(value, str) and re.search(r"\bpip\b", value)
]


@pytest.mark.parametrize("path", LISTED)
def test_each_requirement_has_one_version_and_its_hashes(path: str) -> None:
    text = (ROOT / path).with_suffix(".txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9.-]+(\[[a-z0-9,-]+\])?==[^\s*]+ ", line), line
        assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), line


def test_uv_the_server_and_certbot_are_among_them() -> None:
    wanted = ("python/files/uv.in", "app/files/server/gunicorn.in", "certificates/files/certbot.in")
    assert {f"roles/{name}" for name in wanted} <= set(LISTED)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_role_installs_it_installs_by_hash(command: str) -> None:
    installs = re.findall(r"\bpip\b[^;]*?\binstall\b[^;]*", command)
    assert installs and all("--require-hashes" in install for install in installs)


def test_a_role_that_installs_is_looked_at() -> None:
    assert len(COMMANDS) >= 2
