"""Changes that the host undoes unless they are confirmed, with a stand-in for systemd that runs what units say."""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.slipway.asgi.plugins.action import config_set as action
from ansible_collections.slipway.asgi.plugins.module_utils import way_back
from ansible_collections.slipway.asgi.plugins.modules.config_set import Refused, converge

KilledAt = Callable[[int, Callable[[], object]], bool]

SYSTEMCTL = """#!/bin/sh
for unit; do :; done
case " $* " in
  *" start "*)
    command=$(sed -n 's/^ExecStart=//p' "{units}/$unit")
    setsid sh -c "echo \\$\\$ >'{processes}/$unit'; $command" >/dev/null 2>&1 &
    while ! test -s "{processes}/$unit"; do sleep 0.01; done
    ;;
  *" stop "*)
    test -e "{processes}/$unit" || exit 0
    kill -KILL -- "-$(cat "{processes}/$unit")" 2>/dev/null
    rm "{processes}/$unit"
    ;;
  *" enable "*) ln -sf "{units}/$unit" "{units}/wanted-$unit" ;;
  *" disable "*) rm -f "{units}/wanted-$unit" ;;
esac
"""


class Host:
    """Some files, the unit that would undo their change, and what has been applied."""

    def __init__(self, directory: Path, me: dict[str, str]) -> None:
        self.directory, self.me = directory, me
        self.etc, self.units, self.processes = directory / "etc", directory / "units", directory / "processes"
        self.marker = directory / "pending" / "rules"
        self.applied = directory / "applied"
        self.one, self.two = self.etc / "one", self.etc / "two"
        for path in (self.etc, self.units, self.processes, directory / "bin"):
            path.mkdir()
        program = directory / "bin/systemctl"
        program.write_text(SYSTEMCTL.format(units=self.units, processes=self.processes))
        program.chmod(0o755)

    def run(self, one: str | None, two: str | None, seconds: int = 600, **options: Any) -> dict[str, Any]:
        """Bring both files into force; one without content is to be absent."""
        files = [
            {
                "path": str(path),
                "content": content,
                "mode": "0640",
                "state": "absent" if content is None else "present",
                **self.me,
            }
            for path, content in ((self.one, one), (self.two, two))
        ]
        # What is in force is what both say, one after the other.
        apply = f"/bin/sh -c 'cat {self.one} {self.two} 2>/dev/null >{self.applied}; true'"
        wanted = {"files": files, "apply": apply, "pending": str(self.marker), "confirm": seconds}
        return converge({**wanted, **options}, check=False)

    def confirm(self, one: str | None, two: str | None) -> dict[str, Any]:
        return self.run(one, two, confirmed=True)

    @property
    def found(self) -> list[str | None]:
        """What both files say."""
        return [path.read_text() if path.exists() else None for path in (self.one, self.two)]

    def rests(self) -> list[str]:
        """What is there beside the two files once nothing is under way."""
        seen = [*self.etc.iterdir(), *self.units.iterdir(), *self.processes.iterdir(), *self.marker.parent.iterdir()]
        return [path.name for path in seen if path not in (self.one, self.two)]

    def wait(self) -> None:
        """Wait until the change is undone."""
        deadline = time.monotonic() + 60
        while self.marker.exists() or list(self.units.iterdir()):
            assert time.monotonic() < deadline, "nothing was undone"
            time.sleep(0.02)


@pytest.fixture
def host(tmp_path: Path, me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    found = Host(tmp_path, me)
    monkeypatch.setattr(way_back, "UNITS", found.units)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found.run("a", None)
    found.confirm("a", None)
    yield found
    for process in found.processes.iterdir():
        way_back.run(["systemctl", "stop", process.name])


def test_a_confirmed_change_stays_and_nothing_else_does(host: Host) -> None:
    host.one.chmod(0o600)
    assert host.run("b", "c")["unconfirmed"] is True
    assert {".former-one", "rules", "rules.way-back"} <= set(host.rests())
    assert host.confirm("b", "c") == {"changed": True}
    assert host.found == ["b", "c"]
    assert host.rests() == []
    assert host.run("b", "c")["changed"] is False


def test_what_nobody_confirms_is_undone_and_the_next_run_makes_it_again(host: Host) -> None:
    host.run("b", "c", seconds=1)
    assert (host.found, host.applied.read_text()) == (["b", "c"], "bc")
    host.wait()
    assert (host.found, host.applied.read_text()) == (["a", None], "a")
    with pytest.raises(Refused, match=rf"within 600 seconds of the change, and has undone it: {host.one}, {host.two}"):
        host.confirm("b", "c")
    assert host.run("b", "c")["unconfirmed"] is True
    host.confirm("b", "c")
    assert (host.found, host.rests()) == (["b", "c"], [])


def test_what_was_taken_away_comes_back_as_it_was(host: Host) -> None:
    host.one.chmod(0o640)
    host.run(None, None, seconds=1)
    assert (host.found, host.applied.read_text()) == ([None, None], "")
    host.wait()
    assert (host.found, host.applied.read_text()) == (["a", None], "a")
    assert stat.S_IMODE(host.one.stat().st_mode) == 0o640


def test_a_run_that_follows_too_soon_begins_from_what_was_confirmed(host: Host) -> None:
    host.run("b", None)
    host.run("c", None, seconds=1)
    host.wait()
    assert (host.found, host.applied.read_text()) == (["a", None], "a")


def test_what_cannot_be_applied_is_undone_at_once(host: Host) -> None:
    with pytest.raises(Refused, match=r"(?s)failed with status 1:\nno\nThe change is undone\."):
        host.run("b", "c", apply=f"/bin/sh -c 'echo no; exit $(grep -c b {host.one})'")
    assert host.found == ["a", None]
    host.wait()
    assert host.run("a", None)["changed"] is False


def test_a_host_that_went_its_own_way_is_brought_back_and_let_go_again(host: Host) -> None:
    in_force = f"/bin/sh -c 'cat {host.one} | cmp - {host.applied}'"
    assert host.run("a", None, in_force=in_force)["changed"] is False
    host.applied.unlink()
    assert host.run("a", None, in_force=in_force, seconds=1)["unconfirmed"] is True
    assert host.applied.read_text() == "a"
    host.wait()
    assert (host.found, host.applied.read_text()) == ([None, None], "")


def test_a_confirmation_that_is_repeated_is_none_too_late(host: Host) -> None:
    host.run("b", None)
    host.confirm("b", None)
    assert host.confirm("b", None) == {"changed": True}


@pytest.mark.parametrize("time_is_up", [False, True])
def test_killed_at_any_change_it_is_undone_or_begun_anew(
    host: Host, killed_at: KilledAt, monkeypatch: pytest.MonkeyPatch, time_is_up: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def act() -> None:
        host.run("b", "c")
        host.confirm("b", "c")

    for number in itertools.count(1):
        killed = killed_at(number, act)
        script = host.marker.with_name("rules.way-back")
        changing = script.exists()
        if changing and time_is_up:
            way_back.run(["systemctl", "stop", "slipway-way-back-rules.service"])
            way_back.run(["/bin/sh", str(script)])
            assert (host.found, host.applied.read_text()) == (["a", None], "a")
        host.run("b", "c")
        host.confirm("b", "c")
        assert (host.found, host.applied.read_text()) == (["b", "c"], "bc")
        assert host.rests() == []
        host.run("a", None)
        host.confirm("a", None)
        if not killed:
            break
    assert number > 20


class Connection:
    """A connection that is refused some times before it is made anew."""

    def __init__(self, refused: int) -> None:
        self.refused, self.resets = refused, 0

    def reset(self) -> None:
        self.resets += 1


@pytest.mark.parametrize("refused", [0, 3])
def test_the_controller_comes_back_by_a_new_connection(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "PAUSE_SECONDS", 0)
    task = Task()
    task.args = {"files": [], "confirm": 30}
    connection: Any = Connection(refused)
    nowhere: Any = None
    loader = DataLoader()
    found = action.ActionModule(task, connection, nowhere, loader, Templar(loader, {}), nowhere)
    monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})
    calls = []

    def execute(module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
        calls.append(module_args.get("confirmed", False))
        if not module_args.get("confirmed"):
            return {"changed": True, "changed_files": ["one"], "unconfirmed": True}
        if len(calls) <= refused + 1:
            raise AnsibleConnectionFailure("timed out")
        return {"changed": True}

    monkeypatch.setattr(found, "_execute_module", execute)
    assert found.run(None, {}) == {"changed": True, "changed_files": ["one"]}
    assert calls == [False, *[True] * (refused + 1)]
    assert connection.resets == refused + 1


def test_a_host_that_stays_away_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(step=20)
    monkeypatch.setattr(action.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(action.time, "sleep", lambda _: None)
    nowhere: Any = None
    connection: Any = Connection(99)
    loader = DataLoader()
    found = action.ActionModule(Task(), connection, nowhere, loader, Templar(loader, {}), nowhere)

    def execute(**_: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("timed out")

    monkeypatch.setattr(found, "_execute_module", execute)
    with pytest.raises(AnsibleConnectionFailure, match="timed out"):
        found._confirm({"confirm": 30}, {})
    assert connection.resets == 4
