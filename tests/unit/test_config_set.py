"""Sets of configuration files: what a change does to a directory of the test, and what it never does."""

from __future__ import annotations

import grp
import itertools
import os
import pwd
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.slipway.asgi.plugins.action.config_set import ActionModule
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, alone
from ansible_collections.slipway.asgi.plugins.modules.config_set import Refused, converge
from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files

KilledAt = Callable[[int, Callable[[], object]], bool]


class Set:
    """A set of files below a directory of the test, owned by whoever runs it."""

    def __init__(self, directory: Path, me: dict[str, str]) -> None:
        self.store = directory / "store"
        self.link = self.store / "current"
        self.pending = directory / "state" / "pending"
        self.applied = directory / "applied"
        self.me = me

    def entry(self, path: str | Path, content: str | None, mode: str = "0644") -> dict[str, Any]:
        """A file as the module takes it; one without content is to be absent."""
        state = "absent" if content is None else "present"
        return {"path": str(path), "content": content, "mode": mode, "state": state, **self.me}

    def converge(self, files: dict[Any, str | None], check: bool = False, **options: Any) -> dict[str, Any]:
        """Bring a whole set into force, as a new generation."""
        return self.in_place(files, check, store=str(self.store), **options)

    def in_place(self, files: dict[Any, str | None], check: bool = False, **options: Any) -> dict[str, Any]:
        """The same for files that each lie somewhere else."""
        entries = [self.entry(path, content) for path, content in files.items()]
        return converge({"files": entries, **options}, check)

    @property
    def generations(self) -> list[str]:
        return sorted(path.name for path in (self.store / "generations").iterdir())

    def apply(self) -> dict[str, str]:
        """Options by which an apply command leaves a line each time."""
        return {"apply": f"/bin/sh -c 'echo x >> {self.applied}'", "pending": str(self.pending)}

    @property
    def times_applied(self) -> int:
        return len(self.applied.read_text().splitlines()) if self.applied.exists() else 0


@pytest.fixture
def config(tmp_path: Path, me: dict[str, str]) -> Set:
    return Set(tmp_path, me)


def tree(directory: Path) -> dict[str, tuple[Any, ...]]:
    """All that a directory holds, so that two looks can be compared; times and inodes among it."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(directory))] = (status.st_ino, status.st_mode, status.st_mtime_ns, content)
    return found


class TestStore:
    def test_writes_the_whole_set_behind_one_link(self, config: Set) -> None:
        result = config.converge({"main.conf": "a", "sites/shop.conf": "b"})
        assert result == {
            "changed": True,
            "changed_files": ["main.conf", "sites/shop.conf"],
            "pending_files": ["main.conf", "sites/shop.conf"],
            "diff": [
                {"before_header": "main.conf", "after_header": "main.conf", "before": "", "after": "a"},
                {"before_header": "sites/shop.conf", "after_header": "sites/shop.conf", "before": "", "after": "b"},
            ],
            "generation": str(config.store / "generations" / "1"),
        }
        assert os.readlink(config.link) == "generations/1"
        assert (config.link / "sites" / "shop.conf").read_text() == "b"

    def test_a_second_run_changes_nothing(self, config: Set, tmp_path: Path) -> None:
        config.converge({"main.conf": "a"})
        before = tree(tmp_path)
        result = config.converge({"main.conf": "a"})
        assert result == {
            "changed": False,
            "changed_files": [],
            "pending_files": [],
            "diff": [],
            "generation": str(config.store / "generations" / "1"),
        }
        assert tree(tmp_path) == before

    def test_a_change_of_one_file_shows_it_and_keeps_the_generation_before(self, config: Set) -> None:
        config.converge({"main.conf": "a\n", "limits.conf": "x\n"})
        result = config.converge({"main.conf": "b\n", "limits.conf": "x\n"})
        assert result["changed_files"] == ["main.conf"]
        assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [("a\n", "b\n")]
        assert config.generations == ["1", "2"]
        assert (config.store / "generations" / "1" / "main.conf").read_text() == "a\n"
        config.converge({"main.conf": "c\n", "limits.conf": "x\n"})
        assert config.generations == ["2", "3"]

    def test_a_file_that_is_no_longer_listed_goes(self, config: Set) -> None:
        config.converge({"main.conf": "a", "sites/shop.conf": "b"})
        result = config.converge({"main.conf": "a"})
        assert result["changed_files"] == ["sites/shop.conf"]
        assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [("b", "")]
        assert not (config.link / "sites").exists()

    def test_modes_and_their_change(self, config: Set) -> None:
        def run(mode: str) -> dict[str, Any]:
            return converge({"store": str(config.store), "files": [config.entry("key", "k", mode)]}, check=False)

        run("0640")
        assert stat.S_IMODE((config.link / "key").stat().st_mode) == 0o640
        assert run("0640")["changed"] is False
        assert run("0600")["changed_files"] == ["key"]
        assert stat.S_IMODE((config.link / "key").stat().st_mode) == 0o600

    def test_what_was_edited_by_hand_is_shown_and_put_right(self, config: Set) -> None:
        config.converge({"main.conf": "a\n"})
        (config.link / "main.conf").write_text("a\nedited\n")
        (config.link / "foreign.conf").symlink_to("/nowhere")
        result = config.converge({"main.conf": "a\n"})
        assert result["changed_files"] == ["foreign.conf", "main.conf"]
        assert [entry["before"] for entry in result["diff"]] == ["/nowhere", "a\nedited\n"]
        assert (config.link / "main.conf").read_text() == "a\n"
        assert os.listdir(config.link) == ["main.conf"]

    def test_remains_of_a_crash_are_swept_with_the_next_change(self, config: Set) -> None:
        config.converge({"main.conf": "a"})
        (config.store / "generations" / ".staging-2").mkdir()
        config.converge({"main.conf": "b"})
        assert config.generations == ["1", "2"]

    def test_an_owner_that_the_host_does_not_have_is_named(self, config: Set, tmp_path: Path) -> None:
        entry = {**config.entry("main.conf", "a"), "group": "slipway-nobody"}
        with pytest.raises(LookupError, match=r"main\.conf: .*slipway-nobody"):
            converge({"store": str(config.store), "files": [entry]}, check=False)
        assert tree(tmp_path) == {}


class TestValidate:
    def test_sees_a_copy_in_which_files_name_each_other_by_the_copys_path(self, config: Set) -> None:
        files = {"main.conf": f"include {config.link}/sites/shop.conf;", "sites/shop.conf": "shop"}
        # The copy's main.conf has to name a file that is there, and that file must be the copy's own.
        script = (
            'cd {root} && included=$(sed "s/include //; s/;//" main.conf) && '
            '[ "$(cat "$included")" = shop ] && [ "$included" = "{root}/sites/shop.conf" ]'
        )
        result = config.converge(files, validate=f"/bin/sh -c '{script}'")
        assert result["validated"] is True
        assert (config.link / "main.conf").read_text() == files["main.conf"]

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("/bin/sh -c 'echo unknown directive >&2; exit 3'", "failed with status 3:\nunknown directive"),
            ("/bin/echo systemd-analyze: Unknown key", "Unknown key"),
            ("slipway-no-such-program {root}", "slipway-no-such-program .*No such file"),
        ],
        ids=["status", "any word of systemd-analyze", "not installed"],
    )
    def test_a_refusal_leaves_everything_as_it_was(
        self, config: Set, tmp_path: Path, command: str, reason: str
    ) -> None:
        config.converge({"main.conf": "good"}, **config.apply())
        before = tree(tmp_path)
        with pytest.raises(Refused, match=reason):
            config.converge({"main.conf": "bad"}, validate=command, **config.apply())
        assert tree(tmp_path) == before
        assert config.times_applied == 1

    def test_is_not_asked_about_what_is_in_force_already(self, config: Set) -> None:
        config.converge({"main.conf": "a"})
        assert config.converge({"main.conf": "a"}, validate="/bin/false")["changed"] is False

    def test_files_in_place_are_validated_too(self, config: Set, tmp_path: Path) -> None:
        path = tmp_path / "etc" / "x.conf"
        with pytest.raises(Refused, match="status 1"):
            config.in_place({path: "bad"}, validate=f"/usr/bin/env grep -q good {{root}}{path}")
        assert not path.parent.exists()
        config.in_place({path: "good"}, validate=f"/usr/bin/env grep -q good {{root}}{path}")
        assert path.read_text() == "good"


class TestCheck:
    def test_on_a_bare_host_nothing_is_written_and_the_validator_may_be_missing(
        self, config: Set, tmp_path: Path
    ) -> None:
        result = config.converge(
            {"main.conf": "a"}, check=True, validate="slipway-no-such-program {root}", **config.apply()
        )
        assert result["changed"] is True
        assert result["validated"] is False
        assert result["diff"][0]["after"] == "a"
        assert "generation" not in result
        assert tree(tmp_path) == {}

    def test_a_change_is_shown_and_not_made(self, config: Set, tmp_path: Path) -> None:
        place = tmp_path / "etc" / "x.conf"
        config.converge({"main.conf": "a"}, **config.apply())
        config.in_place({place: "a"})
        before = tree(tmp_path)
        assert config.converge({"main.conf": "b"}, check=True, **config.apply())["changed_files"] == ["main.conf"]
        assert config.in_place({place: None}, check=True)["changed_files"] == [str(place)]
        assert config.in_place({place: "b"}, check=True, **config.apply())["changed"] is True
        assert config.converge({"main.conf": "a"}, check=True, **config.apply())["changed"] is False
        assert tree(tmp_path) == before


class TestPending:
    def test_apply_runs_once_for_a_change_and_not_without_one(self, config: Set) -> None:
        for _ in range(2):
            config.converge({"main.conf": "a"}, **config.apply())
            assert config.times_applied == 1
            assert not config.pending.exists()

    def test_without_apply_the_marker_stays_for_whoever_applies(self, config: Set) -> None:
        config.converge({"main.conf": "a"}, pending=str(config.pending))
        assert config.pending.exists()
        assert config.converge({"main.conf": "a"}, pending=str(config.pending))["changed"] is True
        config.pending.unlink()
        assert config.converge({"main.conf": "a"}, pending=str(config.pending))["changed"] is False

    def test_the_marker_names_what_runs_that_were_cut_off_have_changed(self, config: Set, tmp_path: Path) -> None:
        unit = tmp_path / "unit.conf"
        config.converge({"main.conf": "a", unit: "a"}, pending=str(config.pending))
        result = config.converge({"main.conf": "b", unit: "a"}, pending=str(config.pending))
        assert (result["changed_files"], result["pending_files"]) == (["main.conf"], ["main.conf", str(unit)])
        # Whoever changes something else leaves it as it is.
        config.pending.touch()
        result = config.converge({"main.conf": "b", unit: "a"}, pending=str(config.pending))
        assert (result["changed_files"], result["pending_files"]) == ([], ["main.conf", str(unit)])

    def test_an_apply_that_failed_is_run_again(self, config: Set) -> None:
        options = {"pending": str(config.pending)}
        with pytest.raises(Refused, match="failed with status 1:\nnot now"):
            config.converge({"main.conf": "a"}, apply="/bin/sh -c 'echo not now; exit 1'", **options)
        assert (config.link / "main.conf").read_text() == "a"
        result = config.converge({"main.conf": "a"}, **config.apply())
        assert (result["changed"], result["changed_files"]) == (True, [])
        assert config.times_applied == 1
        assert config.converge({"main.conf": "a"}, **config.apply())["changed"] is False

    def test_a_refused_set_is_not_pending(self, config: Set) -> None:
        with pytest.raises(Refused):
            config.converge({"main.conf": "a"}, validate="/bin/false", **config.apply())
        assert not config.pending.exists()


class TestInPlace:
    def test_writes_each_file_at_its_own_path(self, config: Set, tmp_path: Path) -> None:
        paths = [tmp_path / "etc" / "sysctl.d" / "60.conf", tmp_path / "etc" / "x.conf"]
        result = config.in_place(dict.fromkeys(paths, "a\n"))
        assert result["changed_files"] == [str(path) for path in paths]
        assert "generation" not in result
        assert [path.read_text() for path in paths] == ["a\n", "a\n"]
        assert config.in_place(dict.fromkeys(paths, "a\n"))["changed"] is False

    def test_touches_only_what_differs(self, config: Set, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        config.in_place({one: "a", two: "a"})
        inode = one.stat().st_ino
        result = config.in_place({one: "a", two: "b"})
        assert [(entry["before_header"], entry["before"], entry["after"]) for entry in result["diff"]] == [
            (str(two), "a", "b")
        ]
        assert one.stat().st_ino == inode

    def test_takes_away_what_shall_be_absent(self, config: Set, tmp_path: Path) -> None:
        path, link = tmp_path / "default", tmp_path / "link"
        path.write_text("was here\n")
        link.symlink_to("default")
        result = config.in_place({link: None, path: None, tmp_path / "never": None})
        assert result["changed_files"] == [str(link), str(path)]
        assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [("default", ""), ("was here\n", "")]
        assert os.listdir(tmp_path) == []
        assert config.in_place({path: None, link: None})["changed"] is False

    def test_replaces_a_link_and_spares_what_it_named(self, config: Set, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("a")
        (tmp_path / "x.conf").symlink_to("victim")
        assert config.in_place({tmp_path / "x.conf": "a"})["changed"] is True
        assert not (tmp_path / "x.conf").is_symlink()
        config.in_place({tmp_path / "x.conf": "b"})
        assert (tmp_path / "victim").read_text() == "a"


class TestMixed:
    """A set with files outside of its generations, such as the one that a distribution's own program begins with."""

    def test_files_with_absolute_paths_lie_outside_of_the_generation(self, config: Set, tmp_path: Path) -> None:
        entry = tmp_path / "etc" / "nginx.conf"
        files: dict[Any, str | None] = {"sites/shop.conf": "shop", entry: f"include {config.link};"}
        result = config.converge(files)
        assert result["changed_files"] == ["sites/shop.conf", str(entry)]
        assert entry.read_text() == f"include {config.link};"
        assert [path.name for path in config.link.rglob("*")] == ["sites", "shop.conf"]
        assert config.converge(files)["changed"] is False

    def test_a_change_outside_makes_no_generation(self, config: Set, tmp_path: Path) -> None:
        entry = tmp_path / "nginx.conf"
        config.converge({"a": "x", entry: "1"})
        result = config.converge({"a": "x", entry: "2"}, validate="grep -q x {root}/a")
        assert (result["changed_files"], entry.read_text()) == ([str(entry)], "2")
        assert config.generations == ["1"]

    def test_a_change_outside_is_validated_with_the_set(self, config: Set, tmp_path: Path) -> None:
        entry = tmp_path / "unit.conf"
        config.converge({"a": "x", entry: "1"})
        with pytest.raises(Refused):
            config.converge({"a": "x", entry: "2"}, validate="/bin/false")
        assert entry.read_text() == "1"

    def test_a_refusal_leaves_what_is_outside_too(self, config: Set, tmp_path: Path) -> None:
        entry = tmp_path / "nginx.conf"
        config.converge({"a": "x", entry: "1"})
        before = tree(tmp_path)
        with pytest.raises(Refused):
            config.converge({"a": "y", entry: "2"}, validate="/bin/false", **config.apply())
        assert tree(tmp_path) == before

    def run(self, config: Set, **entry: Any) -> dict[str, Any]:
        return converge({"files": [{**config.entry(entry["path"], entry.get("content")), **entry}]}, check=False)

    def test_only_the_link_that_is_meant_is_removed(self, config: Set, tmp_path: Path) -> None:
        link = tmp_path / "default"
        link.symlink_to("/etc/other")
        wanted = {"path": str(link), "target": "../sites-available/default"}
        assert self.run(config, **wanted)["changed"] is False
        link.unlink()
        link.write_text("a file of the user's own")
        assert self.run(config, **wanted)["changed"] is False
        link.unlink()
        link.symlink_to("../sites-available/default")
        assert self.run(config, **wanted)["changed_files"] == [str(link)]
        assert not os.path.lexists(link)
        assert self.run(config, **wanted)["changed"] is False

    def test_what_was_there_before_is_kept_once(self, config: Set, tmp_path: Path) -> None:
        path, kept = tmp_path / "nginx.conf", tmp_path / "nginx.conf.before-slipway"
        path.write_text("the distribution's")
        path.chmod(0o640)
        for content in ("one", "two"):
            self.run(config, path=str(path), content=content, keep=str(kept))
            assert path.read_text() == content
            assert kept.read_text() == "the distribution's"
            assert stat.S_IMODE(kept.stat().st_mode) == 0o640

    def test_a_link_that_goes_is_kept_too(self, config: Set, tmp_path: Path) -> None:
        link, kept = tmp_path / "default", tmp_path / "kept/default"
        link.symlink_to("../sites-available/default")
        self.run(config, path=str(link), keep=str(kept))
        assert not os.path.lexists(link)
        assert os.readlink(kept) == "../sites-available/default"


@pytest.mark.parametrize("in_place", [False, True], ids=["generation", "in place"])
def test_killed_at_any_change_nothing_is_torn_and_the_next_run_finishes(
    config: Set, tmp_path: Path, killed_at: KilledAt, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    # A killed process loses nothing that it has written; waiting for the disk is for power cuts.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    base = tmp_path / "etc" if in_place else config.link
    names: list[Any] = [base / "a", base / "b"] if in_place else ["a", "b"]
    run = config.in_place if in_place else config.converge

    for number in itertools.count(1):
        for path in ("etc", "store", "state"):
            shutil.rmtree(tmp_path / path, ignore_errors=True)
        config.applied.unlink(missing_ok=True)
        run(dict.fromkeys(names, "old"))
        killed = killed_at(number, lambda: run(dict.fromkeys(names, "new"), **config.apply()))
        found = [(base / name).read_text() for name in ("a", "b")]
        assert set(found) <= {"old", "new"}
        if not in_place:
            assert len(set(found)) == 1, "half of the set is in force"
        run(dict.fromkeys(names, "new"), **config.apply())
        assert [(base / name).read_text() for name in ("a", "b")] == ["new", "new"]
        assert config.times_applied >= 1, "the new files are in force, and nobody applied them"
        assert not config.pending.exists()
        assert not list(tmp_path.rglob(".staging-*"))
        assert run(dict.fromkeys(names, "new"), **config.apply())["changed"] is False
        if not killed:
            break
    assert number > 10


class TestRender:
    """What the action makes of a role's list of files, and the whole in a real run."""

    @pytest.fixture
    def render(self, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
        for path, text in {
            "templates/site.conf.j2": "{{ item.name }} {{ port }}\n",
            "files/x.py": "{{ raw }}\n",
        }.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        loader = DataLoader()
        loader.set_basedir(str(tmp_path))
        nowhere: Any = None  # rendering needs no host
        action = ActionModule(Task(), nowhere, nowhere, loader, Templar(loader, {}), nowhere)
        return lambda *entries, **extra: render_files(action, list(entries), {"port": 443}, extra)

    def test_one_file_for_each_element(self, render: Callable[..., list[dict[str, Any]]]) -> None:
        sites = [{"name": "blog"}, {"name": "shop"}]
        assert render({"path": "sites/{name}.conf", "template": "site.conf.j2", "each": sites, "mode": "0640"}) == [
            {"path": "sites/blog.conf", "content": "blog 443\n", "mode": "0640"},
            {"path": "sites/shop.conf", "content": "shop 443\n", "mode": "0640"},
        ]
        assert render({"path": "{name}", "src": "{item}", "each": ["x.py"]}) == [
            {"path": "x.py", "content": "{{ raw }}\n"}
        ]
        assert render({"path": "{name}", "template": "site.conf.j2", "each": []}) == []

    def test_content_absence_and_what_an_app_needs(self, render: Callable[..., list[dict[str, Any]]]) -> None:
        entries = [{"path": "a", "content": "x"}, {"path": "b", "state": "absent"}]
        assert render(*entries) == entries
        migrate = {"path": "migrate", "content": "x", "needs": "migrate"}
        assert render(migrate, app={"migrate": ""}) == []
        assert len(render(migrate, app={"migrate": "alembic upgrade head"})) == 1

    def test_an_entry_that_says_nothing_is_refused(self, render: Callable[..., list[dict[str, Any]]]) -> None:
        with pytest.raises(AnsibleActionFail, match="a: one of template, src, content or state: absent is needed"):
            render({"path": "a"})


def test_a_real_run_renders_checks_writes_and_refuses(
    playbook: Callable[..., Any], config: Set, tmp_path: Path
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "site.conf.j2").write_text(
        "{{ ansible_managed | comment }}\n{{ item.name }} {{ port }}\n"
    )
    entry = {"path": "{name}.conf", "template": "site.conf.j2", "each": "{{ sites }}", **config.me}
    arguments = {
        "store": str(config.store),
        "files": [entry],
        "validate": "grep -rq 443 {root}",
        **config.apply(),
    }
    variables = {"port": 443, "sites": [{"name": "blog"}, {"name": "shop"}]}
    task = {"slipway.asgi.config_set": arguments, "vars": variables, "diff": True}
    refused = {**task, "vars": {**variables, "port": 80}, "ignore_errors": True}
    lonely = {"slipway.asgi.config_set": {"files": [], "apply": "/bin/true"}, "ignore_errors": True}
    tasks = [{**task, "check_mode": True}, task, task, refused, lonely]
    results = playbook(tmp_path, tasks, {"localhost": {}})["localhost"]
    check, first, second, third, fourth = results
    files = ["blog.conf", "shop.conf"]
    text = "#\n# Ansible managed\n#\nshop 443\n"
    assert (check["changed"], check["changed_files"]) == (True, files)
    assert (first["changed"], first["changed_files"], first["validated"]) == (True, files, True)
    assert first["diff"] == check["diff"]
    assert first["diff"][1]["after"] == text
    assert (second["changed"], second["diff"]) == (False, [])
    assert third["failed"] and "failed with status 1" in third["msg"]
    assert fourth["failed"] and "pending" in fourth["msg"]
    assert (config.link / "shop.conf").read_text() == text
    assert config.generations == ["1"]
    assert config.times_applied == 1


def test_another_run_is_kept_off_and_leaves_no_trace(tmp_path: Path) -> None:
    pending = str(tmp_path / "state" / "pending")
    with alone(pending):
        with (
            pytest.raises(Failed, match=r"another run of Slipway is at work on this host.*; try again later"),
            alone(pending, seconds=0),
        ):
            pytest.fail("both are at work")
        with alone(str(tmp_path / "state" / "other"), seconds=0), alone(None):
            pass
    with alone(pending, seconds=0):
        pass
    assert os.listdir(tmp_path / "state") == []


def test_files_outside_of_the_store_follow_the_set_and_what_was_there_is_kept(tmp_path: Path) -> None:
    me = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name, "mode": "0644"}
    entry, placeholder, other = tmp_path / "nginx.conf", tmp_path / "default", tmp_path / "mine"
    entry.write_text("as it came")
    placeholder.symlink_to("/somewhere/default")
    other.symlink_to("/somewhere/else")
    target = "/somewhere/default"
    options = {
        "store": str(tmp_path / "store"),
        "files": [
            {"path": "inner.conf", "content": "inner", "state": "present", **me},
            {"path": str(placeholder), "state": "absent", "target": target},
            {"path": str(other), "state": "absent", "target": target},
            {"path": str(entry), "content": "ours", "state": "present", "keep": f"{entry}.before-slipway", **me},
        ],
    }
    first = converge(options, check=False)
    assert first["changed_files"] == ["inner.conf", str(entry), str(placeholder)]
    assert (tmp_path / "store/current/inner.conf").read_text() == "inner"
    assert entry.read_text() == "ours"
    assert not placeholder.is_symlink()
    assert other.is_symlink()
    assert (tmp_path / "nginx.conf.before-slipway").read_text() == "as it came"
    assert not converge(options, check=False)["changed"]
    entry.write_text("edited")
    assert converge(options, check=False)["changed_files"] == [str(entry)]
    assert (tmp_path / "nginx.conf.before-slipway").read_text() == "as it came"
    assert (tmp_path / "store/current").resolve().name == "1"
