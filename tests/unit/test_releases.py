"""Releases: what identifies one, how one is built with real git, uv and tar, and which ones go.

Only systemd-run is stood in for, by a program that runs the command as this user and notes how it was to be shut in.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.asgi.plugins.module_utils import releases
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Layout, Systemd, last_lines, run
from ansible_collections.slipway.asgi.plugins.module_utils.releases import Inputs, build, commit_of, python_path, retire
from ansible_collections.slipway.asgi.plugins.module_utils.slots import Slots
from ansible_collections.slipway.asgi.plugins.modules.release import STATES
from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import archive

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD_RUN = f"""#!{sys.executable} -IS
import json, os, sys
cut = sys.argv.index("--")
options, command = [word.partition("=") for word in sys.argv[1:cut]], sys.argv[cut + 1:]
values = lambda wanted: [value for name, _, value in options if name == wanted]
with open({{log!r}}, "a") as log:
    print(json.dumps([command, values("--property")]), file=log)
os.chdir(values("--working-directory")[0])
os.execvpe(command[0], command, dict(text.split("=", 1) for text in values("--setenv")))
"""


def git(directory: Path, *arguments: str) -> str:
    # Nothing of the developer's own: no hooks, no signing, no name of the first branch.
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, a branch, a light tag and an annotated one."""
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "commit", "--quiet", "--allow-empty", "--message=one")
    git(path, "tag", "light")
    git(path, "tag", "--annotate", "--message=x", "v1.0")
    git(path, "branch", "feature/cart")
    (path / "requirements.txt").write_text("# nothing to install, so nothing to hash: --hash=\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=two")
    return path


class TestCommit:
    @pytest.mark.parametrize(
        ("version", "commit"),
        [("v1.0", "main~1"), ("light", "main~1"), ("feature/cart", "main~1"), ("main", "main"), ("HEAD", "main")],
    )
    def test_of_a_tag_a_branch_and_head(self, repository: Path, version: str, commit: str) -> None:
        assert commit_of(f"file://{repository}", version) == git(repository, "rev-parse", commit)

    def test_a_tag_goes_before_a_branch_of_its_name(self, repository: Path) -> None:
        git(repository, "branch", "v1.0", "main")
        assert commit_of(f"file://{repository}", "v1.0") == git(repository, "rev-parse", "main~1")

    def test_a_full_commit_is_one_without_asking(self) -> None:
        assert commit_of("file:///nowhere", "a" * 40) == "a" * 40

    def test_a_version_that_is_not_there(self, repository: Path) -> None:
        with pytest.raises(Failed, match=r'source\.version is "v9": file:///.* has no tag or branch of this name'):
            commit_of(f"file://{repository}", "v9")

    def test_a_repository_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(Failed, match=r"source\.git: reading file:///.* failed with status 128:\n(?s:.*)nowhere"):
            commit_of(f"file://{tmp_path}/nowhere", "v1")


class TestIdentity:
    INPUTS = Inputs({"digest": "d"}, "system", "make", "gunicorn")

    def test_is_short_and_the_same_each_time(self) -> None:
        identity = self.INPUTS.identify()
        assert len(identity) == 12 and int(identity, 16) >= 0
        assert Inputs({"digest": "d", "path": "/elsewhere"}, "system", "make", "gunicorn").identify() == identity

    def test_changes_with_each_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(releases, "python_version", lambda wanted: f"/usr/bin/{wanted}")
        inputs = [
            self.INPUTS,
            Inputs({"digest": "e"}, "system", "make", "gunicorn"),
            Inputs({"digest": "d"}, "3.13", "make", "gunicorn"),
            Inputs({"digest": "d"}, "system", "", "gunicorn"),
            Inputs({"digest": "d"}, "system", "make", "uvicorn"),
        ]
        assert len({one.identify() for one in inputs}) == len(inputs)

    def test_of_git_is_that_of_the_commit(self, repository: Path) -> None:
        def identify(version: str) -> str:
            return Inputs({"git": f"file://{repository}", "version": version}, "system", "", "").identify()

        assert (
            identify("v1.0") == identify("light") == identify(git(repository, "rev-parse", "light")) != identify("main")
        )


class TestPython:
    def test_the_distributions(self) -> None:
        assert python_path("system") == Path("/usr/bin/python3").resolve()
        version = python_path("system").name.removeprefix("python")
        assert python_path(version) == Path(f"/usr/bin/python{version}")

    def test_the_newest_that_uv_manages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(releases, "PYTHONS", str(tmp_path))
        for version in ("3.99.2", "3.99.10", "3.98.11"):
            path = tmp_path / f"cpython-{version}-linux-x86_64-gnu" / "bin" / f"python{version.rpartition('.')[0]}"
            path.parent.mkdir(parents=True)
            path.touch()
        assert python_path("3.99").parts[-3] == "cpython-3.99.10-linux-x86_64-gnu"

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(Failed, match=r'python is "3\.99": this host has no Python 3\.99'):
            python_path("3.99")


def wheel(directory: Path, name: str, **modules: str) -> str:
    """Make a wheel of these modules, and return the line of requirements that pins it by hash."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {f"{module.replace('.', '/')}.py": text for module, text in modules.items()}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for file, text in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(path, "w") as stream:
        for file, text in files.items():
            stream.writestr(file, text)
    return f"{name} @ file://{path} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Bench:
    """Where releases are built: a host's directories, a source, and what the stand-in for systemd-run has noted."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout("shop", directory / "root")
        self.source = directory / "source"
        self.source.mkdir()
        self.wheels = directory
        self.log = directory / "log"
        own = ROOT / ".cache" / "uv" / "bin" / "uv"
        self.uv = str(own) if own.exists() else str(shutil.which("uv"))
        self.server = wheel(directory, "server_set", gunicorn="", shared="whose = 'server'\n")

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.source / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def build(self, identity: str = "r1", command: str = "", source: dict[str, Any] | None = None) -> Path:
        """Build a release of the source, which is sent as a path is."""
        sent = self.wheels / "sent.tar"
        archive(self.source, sent)
        inputs = Inputs(source or {"digest": "x"}, "system", command, self.server)
        build(self.layout, identity, inputs, None if source else str(sent), self.uv)
        return self.layout.release(identity)

    @property
    def commands(self) -> list[tuple[list[str], list[str]]]:
        """What was run in the sandbox, with the properties of it."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def python(self, release: Path, script: str) -> str:
        command = [release / ".venv" / "bin" / "python", "-c", script]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@pytest.fixture
def bench(tmp_path: Path, me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemd-run").write_text(SYSTEMD_RUN.format(log=str(bench.log)))
    (programs / "systemd-run").chmod(0o755)
    if os.geteuid() != 0:
        (programs / "chown").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(releases, "BUILD_USER", me["owner"])
    return bench


class TestBuild:
    def test_from_hashed_requirements(self, bench: Bench) -> None:
        bench.write(requirements__txt=wheel(bench.wheels, "locked", shared="whose = 'locked'\n"), main__py="app = 1\n")
        (bench.source / "main.py").chmod(0o777)
        began = time.time()
        release = bench.build(command='python -c \'import shared; open("built", "w").write(shared.whose)\'')
        assert json.loads((release / "complete").read_text()) == {
            "commit": "",
            "python": str(Path("/usr/bin/python3").resolve()),
        }
        assert bench.layout.is_complete("r1")
        # The build command sees the virtual environment, and what it makes is part of the release.
        assert (release / "src" / "built").read_text() == "locked"
        # The server is beside the environment, and what the project locks wins.
        assert (
            bench.python(release, "import gunicorn, shared; print(gunicorn.__file__)")
            == f"{release}/server/gunicorn.py"
        )
        assert bench.python(release, "import shared; print(shared.whose)") == "locked"
        # Times are those of the unpacking, and nobody but root may write.
        assert (release / "src" / "main.py").stat().st_mtime >= began - 1
        modes = {path.stat().st_mode & 0o7777 for path in release.rglob("*") if not path.is_symlink()}
        assert modes <= {0o755, 0o644}
        assert (release / "src" / "main.py").stat().st_mode & 0o777 == 0o755
        assert sorted(path.name for path in release.iterdir()) == [".venv", "complete", "server", "server.txt", "src"]
        assert list((release / "src" / "__pycache__").glob("main.*.pyc"))

    def test_foreign_code_runs_shut_in_and_may_write_to_the_release_and_its_cache_alone(self, bench: Bench) -> None:
        bench.write(requirements__txt=wheel(bench.wheels, "locked", shared=""))
        release = bench.build(command="true")
        assert len(bench.commands) >= 5
        for command, properties in bench.commands:
            assert f"ReadWritePaths={release} {bench.layout.cache}" in properties, command
            assert [text for text in properties if text.startswith("ReadWritePaths=")] == properties[-1:]
            assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet="} <= set(properties)
            assert "InaccessiblePaths=-/etc/slipway -/var/lib/slipway -/run/slipway" in properties

    def test_a_complete_one_is_left_alone(self, bench: Bench) -> None:
        (bench.layout.release("r1")).mkdir(parents=True)
        (bench.layout.release("r1") / "complete").touch()
        bench.build()
        assert bench.commands == []

    def test_a_project_that_locks_its_own_server_gets_no_other(self, bench: Bench) -> None:
        server = wheel(bench.wheels, "own", **{"gunicorn.__init__": "", "uvicorn_worker.__init__": ""})
        bench.write(requirements__txt=server)
        release = bench.build()
        assert not (release / "server").exists()
        assert "site-packages" in bench.python(release, "import gunicorn; print(gunicorn.__file__)")

    def test_from_git(self, bench: Bench, repository: Path) -> None:
        source = {"git": f"file://{repository}", "version": "main"}
        release = bench.build(source=source)
        assert json.loads((release / "complete").read_text())["commit"] == git(repository, "rev-parse", "main")
        assert os.listdir(release / "src") == ["requirements.txt"]

    def test_from_git_a_commit_that_no_reference_names(self, bench: Bench, repository: Path) -> None:
        commit = git(repository, "rev-parse", "main")
        git(repository, "commit", "--quiet", "--allow-empty", "--message=three")
        release = bench.build(source={"git": f"file://{repository}", "version": commit})
        assert json.loads((release / "complete").read_text())["commit"] == commit

    def test_from_uv_lock_and_never_from_one_that_does_not_match(self, bench: Bench) -> None:
        project = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.{}"\n[tool.uv]\npackage = false\n'
        bench.write(pyproject__toml=project.format(10))
        subprocess.run([bench.uv, "lock", "--quiet", "--offline"], cwd=bench.source, check=True)
        release = bench.build()
        assert bench.python(release, "import sys; print(sys.prefix)") == f"{release}/.venv"
        bench.write(pyproject__toml=project.format(9))
        with pytest.raises(
            Failed, match=r"installing from uv\.lock failed with status \d:\n(?s:.*)lockfile.*needs to be"
        ):
            bench.build("r2")
        assert not bench.layout.is_complete("r2")

    @pytest.mark.parametrize(
        ("files", "command", "reason"),
        [
            ({"main__py": ""}, "", "neither uv.lock nor requirements.txt.*make one with: uv lock"),
            (
                {"requirements__txt": "fastapi==1.0\n"},
                "",
                "requirements.txt has no hashes.*uv pip compile --generate-hashes",
            ),
            (
                {"requirements__txt": "x @ file:///no.whl --hash=sha256:00\n"},
                "",
                "installing from requirements.txt failed",
            ),
            (
                {"requirements__txt": "# --hash=\n"},
                "echo no npm; exit 7",
                "build: echo no npm; exit 7 failed.*7:\nno npm",
            ),
        ],
        ids=["no lock", "no hashes", "a wrong hash", "a build that fails"],
    )
    def test_one_that_cannot_be_built_says_why_and_the_next_build_starts_afresh(
        self, bench: Bench, files: dict[str, str], command: str, reason: str
    ) -> None:
        bench.write(**files)
        with pytest.raises(Failed, match=f"(?s){reason}"):
            bench.build(command=command)
        assert not bench.layout.release("r1").exists()
        # What a build that was killed leaves.
        bench.layout.release("r1").mkdir()
        (bench.layout.release("r1") / "left").touch()
        bench.write(requirements__txt="# --hash=\n")
        assert not (bench.build() / "left").exists()
        assert bench.layout.is_complete("r1")

    def test_a_link_that_a_build_backend_left_is_not_followed(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "victim").write_text("victim")
        bench.write(requirements__txt="# --hash=\n")
        install = releases._Builder.install

        def hostile(builder: Any, python: Path) -> None:
            install(builder, python)
            for name in ("server.txt", "complete"):
                (builder.release / name).symlink_to(tmp_path / "victim")

        monkeypatch.setattr(releases._Builder, "install", hostile)
        release = bench.build()
        assert (tmp_path / "victim").read_text() == "victim"
        assert not (release / "complete").is_symlink()

    def test_the_modules_state_present(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "__defaults__", (bench.uv,))
        app = {
            "name": "shop",
            "release": "r1",
            "source": {"digest": "x"},
            "python": "system",
            "build": "",
            "server": "",
        }
        slots = Slots(bench.layout, Systemd())
        bench.write(main__py="")
        archive(bench.source, bench.wheels / "one.tar")
        with pytest.raises(
            Failed, match="the release cannot be built, and what served still does: the source has neither"
        ):
            STATES["present"]({**app, "archive": str(bench.wheels / "one.tar")}, slots, False)
        bench.write(requirements__txt="# --hash=\n")
        archive(bench.source, bench.wheels / "two.tar")
        assert STATES["present"]({**app, "archive": str(bench.wheels / "two.tar")}, slots, False) == {"changed": True}
        assert bench.layout.is_complete("r1")
        assert slots.timings["build"] > 0
        assert STATES["present"](app, slots, False) == {"changed": False}


HELD = {"r5", "r2"}


class TestRetire:
    @pytest.fixture
    def layout(self, tmp_path: Path) -> Layout:
        """Seven releases, r1 the oldest; r5 and r2 are held, and r6 was never finished."""
        layout = Layout("shop", tmp_path)
        for number in range(1, 8):
            path = layout.release(f"r{number}")
            path.mkdir(parents=True)
            if number != 6:
                (path / "complete").touch()
            # Some of them will be removed before the marker, in whatever order a file system lists them.
            for name in range(8):
                (path / str(name)).touch()
            os.utime(path, (number, number))
        return layout

    @pytest.mark.parametrize(
        ("keep", "left"),
        [(9, "12 3457"), (5, "2 3457"), (4, "2457"), (3, "257"), (2, "25"), (1, "25"), (0, "25")],
    )
    def test_keeps_the_newest_and_what_is_held(self, layout: Layout, keep: int, left: str) -> None:
        wanted = [f"r{number}" for number in left.replace(" ", "")]
        removed = retire(layout, keep, HELD)
        assert sorted(os.listdir(layout.releases)) == wanted
        assert sorted([*removed, *wanted]) == [f"r{number}" for number in range(1, 8)]
        assert retire(layout, keep, HELD) == []

    def test_killed_at_any_change_what_is_complete_is_whole(
        self, layout: Layout, tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
    ) -> None:
        whole = tmp_path / "whole"
        shutil.move(layout.home, whole)
        for number in itertools.count(1):
            shutil.rmtree(layout.home, ignore_errors=True)
            shutil.copytree(whole, layout.home, symlinks=True)
            killed = killed_at(number, lambda: retire(layout, 3, HELD))
            for name in os.listdir(layout.releases):
                assert len(os.listdir(layout.release(name))) == 9 or not layout.is_complete(name)
            retire(layout, 3, HELD)
            assert sorted(os.listdir(layout.releases)) == ["r2", "r5", "r7"]
            if not killed:
                break
        assert number > 8


class TestRun:
    def test_gives_both_streams(self) -> None:
        assert run(["/bin/sh", "-c", "echo $A; echo b >&2"], environment={"A": "a"}) == "a\nb\n"

    def test_a_failure_shows_the_command_and_its_last_lines(self) -> None:
        with pytest.raises(Failed) as failed:
            run(["/bin/sh", "-c", "seq 100; exit 3"])
        lines = str(failed.value).splitlines()
        assert lines[0] == "/bin/sh -c 'seq 100; exit 3' failed with status 3:"
        assert lines[1:] == [str(number) for number in range(71, 101)]

    def test_a_failure_is_introduced_as_told(self) -> None:
        with pytest.raises(Failed, match=r"^the build failed with status 1:"):
            run(["false"], "the build")

    def test_a_program_that_is_not_there(self) -> None:
        with pytest.raises(Failed, match=r"^the build: slipway-no-such-program is not installed$"):
            run(["slipway-no-such-program"], "the build")

    def test_one_that_takes_too_long(self) -> None:
        with pytest.raises(Failed, match=r"^sleep 9 took longer than 0\.05 seconds$"):
            run(["sleep", "9"], seconds=0.05)

    def test_asks_nobody_for_input(self) -> None:
        assert run(["cat"]) == ""

    def test_bytes_that_are_no_text(self) -> None:
        assert run(["printf", r"\377"]) == "\N{REPLACEMENT CHARACTER}"

    def test_last_lines(self) -> None:
        assert last_lines("\n a\nb\nc\n\n", 2) == "b\nc"
