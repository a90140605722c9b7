"""An app's source on the controller: what belongs to it, what identifies it, and what is sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleError

from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import archive, digest_of, files_of


def git(directory: Path, *arguments: str) -> None:
    # Nothing of the developer's own: no hooks, no signing, no global ignore file.
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **settings})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small project with all that a source can hold and not be part of it."""
    directory = tmp_path / "shop"
    for path, text in {
        "pyproject.toml": "[project]\n",
        "uv.lock": "version = 1\n",
        "shop/main.py": "app = None\n",
        "bin/run": "#!/bin/sh\n",
        "shop/__pycache__/main.cpython-313.pyc": "bytes",
        ".venv/bin/python": "",
        ".env": "SECRET=canary\n",
        ".gitignore": ".env\n*.log\n",
        "debug.log": "",
    }.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    (directory / "bin" / "run").chmod(0o755)
    (directory / "current").symlink_to("shop")
    (directory / "dangling").symlink_to("nowhere")
    os.mkfifo(directory / "pipe")
    return directory


TRACKED = [".gitignore", "bin/run", "current", "dangling", "pyproject.toml", "shop/main.py", "uv.lock"]


class TestFiles:
    def test_without_git_all_but_what_is_never_a_source(self, source: Path) -> None:
        assert files_of(source) == sorted([*TRACKED, ".env", "debug.log"])

    def test_with_git_what_is_tracked_or_would_be_added(self, source: Path) -> None:
        git(source, "init", "--quiet")
        assert files_of(source) == TRACKED
        git(source, "add", "--all")
        git(source, "commit", "--quiet", "--message=x")
        (source / "new.py").touch()
        (source / "uv.lock").unlink()
        assert files_of(source) == sorted({*TRACKED, "new.py"} - {"uv.lock"})

    def test_a_directory_of_a_larger_repository(self, source: Path) -> None:
        git(source.parent, "init", "--quiet")
        (source.parent / "other").touch()
        assert files_of(source) == TRACKED

    def test_names_that_are_no_text(self, source: Path) -> None:
        git(source, "init", "--quiet")
        for name in ("ä b", "x\ny", os.fsdecode(b"\xff")):
            (source / name).touch()
        assert set(files_of(source)) == {*TRACKED, "ä b", "x\ny", os.fsdecode(b"\xff")}
        assert len(digest_of(source)) == 64

    def test_a_directory_that_the_repository_around_it_ignores(self, source: Path) -> None:
        git(source.parent, "init", "--quiet")
        (source.parent / ".gitignore").write_text("shop/\n")
        assert "pyproject.toml" in files_of(source)

    def test_where_git_does_not_answer_nothing_is_sent_that_it_might_ignore(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (source / ".git").write_text("gitdir: /nowhere\n")
        with pytest.raises(
            AnsibleError, match=r"shop is in a git repository, and git does not list its files: fatal: "
        ):
            files_of(source)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(AnsibleError, match="git is not installed"):
            files_of(source)

    def test_a_plain_directory_needs_no_git(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert "pyproject.toml" in files_of(source)


class TestDigest:
    def test_is_that_of_the_listed_files_alone(self, source: Path) -> None:
        git(source, "init", "--quiet")
        before = digest_of(source)
        (source / ".env").write_text("SECRET=other\n")
        (source / "debug.log").write_text("noise")
        git(source, "add", "--all")
        git(source, "commit", "--quiet", "--message=x")
        assert digest_of(source) == before

    def test_is_the_same_for_a_copy_elsewhere_with_other_times_and_modes(self, source: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        (source / "pipe").unlink()
        shutil.copytree(source, copy, symlinks=True)
        for path in copy.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        (copy / "uv.lock").chmod(0o600)
        (copy / "bin" / "run").chmod(0o700)
        # As git sees it, the owner's bit is the one that counts, whoever looks.
        (copy / "pyproject.toml").chmod(0o645)
        assert digest_of(copy) == digest_of(source)

    @pytest.mark.parametrize(
        "change",
        [
            lambda source: (source / "uv.lock").write_text("version = 2\n"),
            lambda source: (source / "uv.lock").chmod(0o755),
            lambda source: (source / "bin" / "run").chmod(0o644),
            lambda source: (source / "uv.lock").rename(source / "uv2.lock"),
            lambda source: (source / "empty").touch(),
            lambda source: (source / "uv.lock").unlink(),
            lambda source: ((source / "dangling").unlink(), (source / "dangling").symlink_to("elsewhere")),
            lambda source: ((source / "dangling").unlink(), (source / "dangling").write_text("nowhere")),
        ],
        ids=["content", "executable", "not executable", "name", "added", "removed", "target", "file for link"],
    )
    def test_changes_with_all_that_makes_a_source(self, source: Path, change: Callable[[Path], object]) -> None:
        before = digest_of(source)
        change(source)
        assert digest_of(source) != before

    def test_names_and_contents_are_told_apart(self, tmp_path: Path) -> None:
        digests = set()
        for number, files in enumerate([{"a": "b", "c": ""}, {"a": "", "c": "b"}, {"ab": "", "c": ""}]):
            directory = tmp_path / str(number)
            directory.mkdir()
            for name, text in files.items():
                (directory / name).write_text(text)
            digests.add(digest_of(directory))
        assert len(digests) == 3


class TestArchive:
    def test_holds_the_listed_files_with_normalised_metadata(self, source: Path, tmp_path: Path) -> None:
        git(source, "init", "--quiet")
        (source / "uv.lock").chmod(0o666)
        archive(source, tmp_path / "source.tar")
        with tarfile.open(tmp_path / "source.tar") as tar:
            entries = tar.getmembers()
        assert [entry.name for entry in entries] == TRACKED
        assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in entries} == {
            (0, 0, "", "", 0)
        }
        modes = {entry.name: entry.mode for entry in entries if entry.isfile()}
        assert modes.pop("bin/run") == 0o755
        assert set(modes.values()) == {0o644}

    def test_is_the_same_each_time_and_for_a_copy(self, source: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        (source / "pipe").unlink()
        shutil.copytree(source, copy, symlinks=True)
        for path in copy.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        for name, directory in {"a": source, "b": source, "c": copy}.items():
            archive(directory, tmp_path / f"{name}.tar")
        assert len({(tmp_path / f"{name}.tar").read_bytes() for name in "abc"}) == 1

    def test_unpacks_as_a_release_does_to_the_same_source(self, source: Path, tmp_path: Path) -> None:
        (source / "ä b").write_text("ü")
        (source / ("long" * 60)).write_text("x")
        archive(source, tmp_path / "source.tar")
        (tmp_path / "src").mkdir()
        with (tmp_path / "source.tar").open("rb") as stream:
            command = ["tar", "--extract", "--touch", "--no-same-owner", "--directory", str(tmp_path / "src")]
            subprocess.run(command, stdin=stream, check=True)
        assert digest_of(tmp_path / "src") == digest_of(source)
        assert os.readlink(tmp_path / "src" / "current") == "shop"
