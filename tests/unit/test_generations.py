"""Files that change as one: written, switched, compared and cleaned up in a directory of the test."""

from __future__ import annotations

import itertools
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import small_files

from ansible_collections.slipway.asgi.plugins.module_utils.generations import (
    File,
    Fingerprint,
    Generations,
    digest,
    lies_at,
    make_directory,
    point,
    read_all,
    write,
)

Make = Callable[..., File]


@pytest.fixture
def file(me: dict[str, str]) -> Make:
    def make(path: str, content: str = "", mode: int = 0o644) -> File:
        return File(path, content.encode(), mode, **me)

    return make


@pytest.fixture(autouse=True)
def tight_umask() -> Iterator[None]:
    """Modes must be those that were asked for, whatever the umask of the host."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    return Generations(tmp_path / "store" / "generations", tmp_path / "links" / "current")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def fingerprints(*files: File) -> dict[str, Fingerprint]:
    return {file.path: Fingerprint.of(file) for file in files}


class TestWrite:
    def test_writes_content_and_mode_and_makes_directories(self, tmp_path: Path, file: Make) -> None:
        path = tmp_path / "a" / "b" / "c.conf"
        write(file("c.conf", "x", 0o640), path)
        assert path.read_text() == "x"
        assert mode(path) == 0o640
        assert mode(path.parent) == mode(path.parent.parent) == 0o755

    def test_a_reader_keeps_the_old_content_and_the_directory_holds_no_remains(
        self, tmp_path: Path, file: Make
    ) -> None:
        path = tmp_path / "c.conf"
        write(file("c.conf", "old"), path)
        with path.open() as reader:
            write(file("c.conf", "new"), path)
            assert reader.read() == "old"
        assert path.read_text() == "new"
        assert os.listdir(tmp_path) == ["c.conf"]

    def test_follows_no_link_to_another_file(self, tmp_path: Path, file: Make) -> None:
        (tmp_path / "victim").write_text("victim")
        for name in ("c.conf", ".staging-c.conf"):
            (tmp_path / name).symlink_to("victim")
        write(file("c.conf", "x"), tmp_path / "c.conf")
        assert (tmp_path / "victim").read_text() == "victim"
        assert (tmp_path / "c.conf").read_text() == "x"
        assert not (tmp_path / "c.conf").is_symlink()
        assert not os.path.lexists(tmp_path / ".staging-c.conf")

    def test_an_owner_that_the_host_does_not_have_is_named_and_nothing_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(LookupError, match=r"c\.conf: .*slipway-nobody"):
            write(File("c.conf", b"x", owner="slipway-nobody"), tmp_path / "c.conf")
        assert os.listdir(tmp_path) == []

    def test_a_disk_that_is_full_is_said_with_the_path_and_leaves_no_remains(self, tmp_path: Path, file: Make) -> None:
        path = tmp_path / "c.conf"
        write(file("c.conf", "old"), path)
        with small_files(5000), pytest.raises(OSError, match=re.escape(f"File too large: '{path}'")):
            write(file("c.conf", "new" * 9000), path)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["c.conf"]

    def test_is_never_readable_for_others_on_its_way(
        self, tmp_path: Path, file: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.umask(0)
        modes = []

        def look(handle: int) -> None:
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))

        monkeypatch.setattr(os, "fsync", look)
        monkeypatch.setattr(os, "fchown", lambda handle, *_: look(handle))
        write(file("secret", "x", 0o600), tmp_path / "secret")
        # The last one is the directory.
        assert modes[:-1] == [0o600, 0o600]


def test_lies_at_compares_content_mode_and_kind(tmp_path: Path, file: Make) -> None:
    wanted, path = file("c.conf", "x", 0o640), tmp_path / "c.conf"
    assert not lies_at(wanted, path)
    write(wanted, path)
    assert lies_at(wanted, path)
    assert not lies_at(file("c.conf", "y", 0o640), path)
    path.chmod(0o644)
    assert not lies_at(wanted, path)
    path.chmod(0o640)
    path.rename(tmp_path / "other")
    path.symlink_to("other")
    assert not lies_at(wanted, path)
    assert not lies_at(File("c.conf", b"x", owner="slipway-nobody"), tmp_path / "other")


def test_file_of_a_module_entry() -> None:
    entry = {"path": "a", "content": "ä", "mode": "0640", "owner": None}
    assert File.of(entry) == File("a", "ä".encode(), 0o640, "root", "root")
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_point_replaces_a_link_and_leaves_no_remains(tmp_path: Path) -> None:
    link = tmp_path / "live"
    (tmp_path / ".staging-live").symlink_to("left by a crash")
    for target in ("slots/blue", "slots/green"):
        point(link, target)
        assert os.readlink(link) == target
    assert os.listdir(tmp_path) == ["live"]


def test_point_moves_a_directory_aside(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "of the user").touch()
    point(tmp_path / "link", "b")
    assert os.readlink(tmp_path / "link") == "b"
    assert [path.name for path in tmp_path.glob("link.*/*")] == ["of the user"]


def test_a_link_is_there_at_every_instant_while_it_changes(tmp_path: Path) -> None:
    link, seen, done = tmp_path / "live", set(), threading.Event()
    point(link, "0")

    def watch() -> None:
        while not done.is_set():
            seen.add(os.readlink(link))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        point(link, str(number % 2))
    done.set()
    watcher.join()
    assert seen <= {"0", "1"} and seen


def test_make_directory_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    make_directory(tmp_path / "a" / "b", 0o710)
    assert mode(tmp_path / "a") == 0o700
    assert mode(tmp_path / "a" / "b") == 0o710


class TestGenerations:
    def test_nothing_is_current_at_first(self, generations: Generations, file: Make) -> None:
        assert generations.current() is None
        assert generations.before() == {}
        assert generations.differing(fingerprints(file("a"), file("b"))) == ["a", "b"]

    def test_a_staged_generation_is_complete_and_not_yet_current(self, generations: Generations, file: Make) -> None:
        staged = generations.stage([file("a", "x"), file("secrets/key", "k", 0o600)], private=["secrets"])
        assert staged == generations.store / "1"
        assert generations.current() is None
        assert (staged / "secrets" / "key").read_text() == "k"
        assert mode(staged) == 0o755
        assert mode(staged / "secrets") == 0o700
        assert mode(staged / "secrets" / "key") == 0o600
        assert os.listdir(generations.store) == ["1"]

    def test_a_disk_that_is_full_keeps_no_half_of_one(self, generations: Generations, file: Make) -> None:
        with small_files(5000), pytest.raises(OSError, match=r"File too large: .*/b'"):
            generations.stage([file("a", "x"), file("b", "x" * 9000)])
        assert os.listdir(generations.store) == []

    def test_activation_is_one_relative_link(self, generations: Generations, file: Make) -> None:
        generations.activate(generations.stage([file("a", "x")]))
        assert os.readlink(generations.link) == "../store/generations/1"
        assert generations.before() == {"a": "x"}
        assert generations.differing(fingerprints(file("a", "x"))) == []

    def test_numbers_go_on_after_the_highest(self, generations: Generations, file: Make) -> None:
        (generations.store / "41").mkdir(parents=True)
        (generations.store / "not a number").mkdir()
        assert generations.stage([file("a")]).name == "42"

    @pytest.mark.parametrize(
        ("harm", "found"),
        [
            (lambda current: (current / "a").write_text("edited"), ["a"]),
            (lambda current: (current / "a").chmod(0o666), ["a"]),
            (lambda current: (current / "a").unlink(), ["a"]),
            (lambda current: (current / "sub" / "b").unlink(), ["sub/b"]),
            (lambda current: (current / "foreign").write_text(""), ["foreign"]),
            (lambda current: (current / "foreign").symlink_to("nowhere"), ["foreign"]),
            (lambda current: (current / "foreign").symlink_to("sub"), ["foreign"]),
            (lambda current: ((current / "a").unlink(), (current / "a").symlink_to("sub/b")), ["a"]),
            (lambda current: ((current / "a").unlink(), (current / "a").mkdir()), ["a"]),
        ],
        ids=[
            "edited",
            "mode",
            "missing",
            "missing in a directory",
            "foreign",
            "dangling link",
            "link",
            "linked",
            "directory",
        ],
    )
    def test_finds_what_was_changed_by_hand_and_puts_it_right(
        self, generations: Generations, file: Make, harm: Callable[[Path], object], found: list[str]
    ) -> None:
        files = [file("a", "x"), file("sub/b", "x")]
        generations.activate(generations.stage(files))
        harm(generations.link)
        assert generations.differing(fingerprints(*files)) == found
        assert isinstance(generations.before(), dict)
        generations.activate(generations.stage(files))
        assert generations.differing(fingerprints(*files)) == []

    def test_a_link_to_a_generation_that_is_gone_counts_as_none(self, generations: Generations, file: Make) -> None:
        generations.link.parent.mkdir()
        generations.link.symlink_to("../store/generations/7")
        assert generations.current() is None
        assert generations.differing(fingerprints(file("a"))) == ["a"]

    def test_remains_of_a_crash_are_swept(self, generations: Generations, file: Make) -> None:
        left = generations.store / ".staging-1" / "sub"
        left.mkdir(parents=True)
        (left / "half").write_text("")
        assert generations.stage([file("a")]).name == "1"
        assert os.listdir(generations.store) == ["1"]
        assert os.listdir(generations.store / "1") == ["a"]

    def test_prune_keeps_the_current_one_and_what_it_is_told(self, generations: Generations, file: Make) -> None:
        staged = [generations.stage([file("a", str(number))]) for number in range(12)]
        generations.activate(staged[0])
        assert generations.newest(2) == [generations.store / "12", generations.store / "11"]
        generations.prune(generations.newest(2))
        assert sorted(path.name for path in generations.store.iterdir()) == ["1", "11", "12"]

    def test_read_all_gives_back_what_was_staged(self, generations: Generations, file: Make) -> None:
        files = [file("a", "x", 0o640), file("sub/b", "y", 0o600)]
        assert read_all(generations.stage(files)) == files

    def test_all_is_on_the_disk_before_the_link_names_it(
        self, generations: Generations, file: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a power cut leaves is what was synced, and that must never be a link to less than the whole."""
        done: list[tuple[str, Path]] = []
        replace = os.replace

        def sync(handle: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            assert path.is_dir() or path.read_text() == "x", "synced before it was written"
            done.append(("sync", path))

        def rename(source: Path, target: Path) -> None:
            done.append(("rename", target))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "replace", rename)
        generations.activate(generations.stage([file("a", "x")]))
        staged = generations.store / ".staging-1"
        assert done == [
            ("sync", staged / ".staging-a"),
            ("rename", staged / "a"),
            ("sync", staged),
            ("sync", generations.store),
            ("rename", generations.link),
            ("sync", generations.link.parent),
        ]

    def test_two_links_share_one_store(self, generations: Generations, file: Make) -> None:
        other = Generations(generations.store, generations.link.with_name("other"))
        generations.activate(generations.stage([file("a", "x")]))
        other.activate(other.stage([file("a", "y")]))
        assert generations.before() == {"a": "x"}
        assert other.before() == {"a": "y"}

    def test_killed_at_any_change_the_link_names_a_complete_generation(
        self,
        generations: Generations,
        file: Make,
        killed_at: Callable[[int, Callable[[], object]], bool],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # A killed process loses nothing that it has written; waiting for the disk is for power cuts.
        monkeypatch.setattr(os, "fsync", lambda _: None)
        old = [file("a", "old"), file("b", "old"), file("secrets/key", "old", 0o600)]
        new = [file("a", "new"), file("b", "new"), file("secrets/key", "new", 0o600)]

        def change() -> None:
            generations.activate(generations.stage(new, private=["secrets"]))
            generations.prune([])

        for number in itertools.count(1):
            generations.activate(generations.stage(old, private=["secrets"]))
            generations.prune([])
            killed = killed_at(number, change)
            assert [] in (generations.differing(fingerprints(*files)) for files in (old, new))
            change()
            assert generations.differing(fingerprints(*new)) == []
            assert len(os.listdir(generations.store)) == 1
            if not killed:
                break
        # Three files, two directories and a link, each in two steps, and what is removed of the generation before.
        assert number > 15
