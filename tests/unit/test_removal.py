"""What a removal takes away, what it leaves, and that it can be cut off; programs of the host are stand-ins."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.asgi.plugins.module_utils import packages
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Systemd
from ansible_collections.slipway.asgi.plugins.modules import removal

KilledAt = Callable[[int, Callable[[], object]], bool]

# The host's packages are files of their names, which hold the names of those that they need.
DPKG_QUERY = """#!/bin/sh
case $1 in
  --show) cd {packages} && for name in *; do echo "installed $name"; done; echo "config-files gone-before" ;;
  --search) test "$2" = {packaged} ;;
esac
"""
APT_GET = """#!/bin/sh
cd {packages}
for name; do
  case $name in
    -*) test "$name" = --simulate && simulate=1 ;;
    purge) purge=1 ;;
    *) test -z "$simulate" || grep -lwr "$name" . | sed 's,./,Purg ,; s,$, [1.0],'
       test -z "$simulate" && rm "$name" || echo "Purg $name [1.0]" ;;
  esac
done
"""
APT_CACHE = """#!/bin/sh
cd {packages}
for name; do case $name in -*|depends) ;; *) echo "$name"; cat "$name" ;; esac; done
"""


class Quiet(Systemd):
    """A service manager that notes what it is told, and lets go of units that nobody wants any more."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def call(self, *arguments: str) -> None:
        self.told.append(arguments)
        if arguments[0] == "disable":
            for unit in arguments[1:]:
                for link in removal.UNITS.glob(f"*.wants/{unit}"):
                    link.unlink()

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        return {unit: {"ActiveState": "failed" if "sick" in unit else "inactive"} for unit in units}


class Host:
    """A directory that stands for a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units, self.etc, self.packages = root / "units", root / "etc", root / "packages"
        self.applied, self.packaged = root / "applied", root / "packaged"
        for path in (self.units, self.etc, self.packages, self.packaged, root / "bin"):
            path.mkdir()
        for name, text in {"dpkg-query": DPKG_QUERY, "apt-get": APT_GET, "apt-cache": APT_CACHE}.items():
            (root / "bin" / name).write_text(text.format(packages=self.packages, packaged=self.packaged))
            (root / "bin" / name).chmod(0o755)

    def fill(self) -> None:
        """Put there what a role makes."""
        shutil.rmtree(self.etc)
        for path, text in {
            "units/slipway-a.service": "",
            "units/slipway-b.timer": "",
            "units/mine.service": "",
            "units/timers.target.wants/slipway-b.timer": "",
            "etc/slipway/deep/file": "x",
            "etc/mine": "x",
            "etc/nginx.conf": "Slipway's",
            "etc/nginx.conf.kept": "as it came",
            "etc/slipway/default.kept": "link",
        }.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)

    def remove(self, check: bool = False, systemd: Systemd | None = None, **options: Any) -> dict[str, Any]:
        """Take it away again."""
        wanted = {
            "units": ["slipway-*"],
            "restore": [
                {"path": str(self.etc / "nginx.conf"), "kept": str(self.etc / "nginx.conf.kept"), "replace": True},
                {"path": str(self.etc / "default"), "kept": str(self.etc / "slipway/default.kept"), "replace": False},
            ],
            "accounts": [],
            "groups": [],
            "paths": [str(self.etc / "slipway"), str(self.etc / "never*")],
            "packages": [],
            "apply": f"/bin/sh -c 'echo x >>{self.applied}'",
            "pending": str(self.root / "state/removing"),
            "directories": [str(self.root / "state"), str(self.etc), str(self.packaged)],
        }
        return removal.remove({**wanted, **options}, check, systemd or Quiet())

    @property
    def left(self) -> dict[str, str]:
        """The files that are there, with what they say."""
        found = [*self.units.rglob("*"), *self.etc.rglob("*")]
        return {str(path.relative_to(self.root)): path.read_text() for path in found if path.is_file()}


LEFT = {
    "units/mine.service": "",
    "etc/mine": "x",
    "etc/nginx.conf": "as it came",
    "etc/default": "link",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    found.fill()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(removal, "UNITS", found.units)
    monkeypatch.setattr(packages, "RECORD", tmp_path / "record")
    monkeypatch.setattr(packages, "BEFORE", tmp_path / "before")
    return found


def test_takes_away_what_is_named_and_puts_back_what_was_kept(host: Host) -> None:
    before = host.left
    checked = host.remove(check=True)
    assert (host.left, checked["changed"]) == (before, True)
    systemd = Quiet()
    result = host.remove(systemd=systemd)
    assert result == checked
    assert result["removed"] == [
        "unit slipway-a.service",
        "unit slipway-b.timer",
        f"Slipway's {host.etc}/nginx.conf",
        f"Slipway's {host.etc}/default",
        f"path {host.etc}/slipway",
    ]
    assert host.left == LEFT
    units = ("slipway-a.service", "slipway-b.timer")
    assert systemd.told == [("stop", *units), ("disable", *units), ("daemon-reload",)]
    assert host.applied.read_text() == "x\n"
    again = host.remove(systemd=systemd)
    assert (again["changed"], again["removed"], len(systemd.told)) == (False, [], 3)
    assert host.applied.read_text() == "x\n"


def test_what_a_user_has_put_there_since_is_not_replaced(host: Host) -> None:
    (host.etc / "default").write_text("the user's")
    host.remove()
    assert host.left == {**LEFT, "etc/default": "the user's"}


def test_directories_go_once_they_are_empty(host: Host) -> None:
    host.remove()
    assert not (host.root / "state").exists()
    assert not (host.units / "timers.target.wants").exists()
    assert host.etc.exists()
    for path in host.etc.iterdir():
        path.unlink()
    assert host.remove()["removed"] == [f"path {host.etc}"]
    assert not host.etc.exists() and host.packaged.exists()


def test_a_unit_that_has_failed_is_forgotten(host: Host) -> None:
    (host.units / "slipway-sick.service").touch()
    systemd = Quiet()
    host.remove(systemd=systemd)
    assert ("reset-failed", "slipway-sick.service") in systemd.told


def test_what_could_not_be_applied_is_applied_again(host: Host) -> None:
    with pytest.raises(Failed, match="failed with status 1"):
        host.remove(apply="/bin/false")
    assert host.remove()["changed"] is True
    assert host.applied.read_text() == "x\n"


def test_killed_at_any_change_the_next_run_finishes(host: Host, killed_at: KilledAt) -> None:
    for number in itertools.count(1):
        host.fill()
        host.applied.unlink(missing_ok=True)
        killed = killed_at(number, host.remove)
        # nginx has one whole configuration or the other.
        assert (host.etc / "nginx.conf").read_text() in ("Slipway's", "as it came")
        host.remove()
        assert host.left == LEFT
        assert host.applied.exists()
        assert host.remove()["changed"] is False
        if not killed:
            break
    assert number > 10


class TestPackages:
    @pytest.fixture(autouse=True)
    def _installed(self, host: Host) -> None:
        """nginx came with Slipway and brought libnginx; git came, too, and the user's own tig needs it by now."""
        for name, needs in {"libc": "", "libnginx": "libc", "nginx": "libnginx", "git": "libc", "tig": "git"}.items():
            (host.packages / name).write_text(needs)
        packages.RECORD.write_text("git\nlibnginx\nnginx\nlong-gone\n")

    def remove(self, *patterns: str) -> dict[str, Any]:
        nothing = {key: [] for key in ("units", "restore", "accounts", "groups", "paths", "directories")}
        options = {**nothing, "apply": None, "pending": None, "packages": list(patterns)}
        return removal.remove(options, False, Quiet())

    def installed(self, host: Host) -> set[str]:
        return set(os.listdir(host.packages))

    def test_what_came_goes_and_what_others_need_stays(self, host: Host) -> None:
        result = self.remove("*")
        assert (result["removed"], result["needed"]) == (["package libnginx", "package nginx"], ["git"])
        assert self.installed(host) == {"libc", "git", "tig"}
        assert self.remove("*")["changed"] is False

    def test_only_what_is_meant(self, host: Host) -> None:
        assert self.remove("nginx")["removed"] == ["package nginx"]
        assert packages.RECORD.exists()
        assert self.remove("tig", "libc")["removed"] == []
        assert self.installed(host) == {"libc", "libnginx", "git", "tig"}

    def test_what_is_needed_by_what_came_stays_with_it(self) -> None:
        assert self.remove("libnginx")["needed"] == ["libnginx"]

    def test_an_installation_that_was_cut_off_counts(self) -> None:
        packages.RECORD.unlink()
        packages.BEFORE.write_text("libc\ngit\ntig\n")
        assert packages.came() == {"libnginx", "nginx"}

    def test_without_a_record_nothing_is_purged(self) -> None:
        packages.RECORD.unlink()
        assert self.remove("*")["removed"] == []
