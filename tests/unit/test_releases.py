"""Releases: what identifies one, how one is built with real git, uv and tar, and which ones go.

Only systemd-run is stood in for, by a program that runs the command as this user and notes how it was to be shut in.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import py_compile
import re
import shutil
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import git, small_files

from ansible_collections.slipway.asgi.plugins.module_utils import bytecode, releases
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Layout, Systemd, last_lines, run
from ansible_collections.slipway.asgi.plugins.module_utils.releases import Inputs, build, python_path, retire
from ansible_collections.slipway.asgi.plugins.module_utils.slots import Slots
from ansible_collections.slipway.asgi.plugins.modules.release import STATES
from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import archive

ROOT = Path(__file__).resolve().parents[2]


class TestIdentity:
    INPUTS = Inputs({"digest": "d"}, "system", "make", "gunicorn", "a set")

    def test_is_short_and_the_same_each_time(self) -> None:
        identity = self.INPUTS.identify()
        assert len(identity) == 12 and int(identity, 16) >= 0
        assert (
            Inputs({"digest": "d", "path": "/elsewhere"}, "system", "make", "gunicorn", "a set").identify() == identity
        )

    def test_changes_with_each_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(releases, "python_version", lambda wanted: f"/usr/bin/{wanted}")
        inputs = [
            self.INPUTS,
            Inputs({"digest": "e"}, "system", "make", "gunicorn", "a set"),
            Inputs({"digest": "d"}, "3.13", "make", "gunicorn", "a set"),
            Inputs({"digest": "d"}, "system", "", "gunicorn", "a set"),
            Inputs({"digest": "d"}, "system", "make", "gunicorn", "another"),
            replace(self.INPUTS, extras=["a"]),
            replace(self.INPUTS, extras=["a", "b"]),
            replace(self.INPUTS, groups=["a"]),
            replace(self.INPUTS, unlocked=True),
        ]
        assert len({one.identify() for one in inputs}) == len(inputs)

    def test_of_git_is_that_of_the_commit(self) -> None:
        commits = [
            Inputs({"git": "x", "version": character * 40}, "system", "", "", "").identify() for character in "aab"
        ]
        assert commits[0] == commits[1] != commits[2]

    def test_does_not_depend_on_order_nor_on_where_packages_come_from(self) -> None:
        inputs = replace(self.INPUTS, extras=["a", "b"], groups=["c", "d"])
        other = replace(inputs, extras=["b", "a"], groups=["d", "c"], index={"url": "x"}, packages=["ffmpeg"])
        assert other.identify() == inputs.identify()


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


def index_of(directory: Path, name: str, *packages: str) -> Path:
    """A package index of wheels that were made there, as files for a web server."""
    for package in packages:
        path = next(directory.glob(f"{package}-*.whl"))
        (directory / name / package).mkdir(parents=True)
        shutil.copy(path, directory / name / package)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        link = f'<a href="{path.name}#sha256={digest}">{path.name}</a>'
        (directory / name / package / "index.html").write_text(f"<!DOCTYPE html>{link}")
    (directory / name).mkdir(exist_ok=True)
    return directory / name


class Bench:
    """Where releases are built: a host's directories, a source, and what the stand-in for systemd-run has noted."""

    def __init__(self, directory: Path, commands: Callable[[], list[list[list[str]]]]) -> None:
        self.commands = commands
        self.layout = Layout("shop", directory / "root")
        self.source = directory / "source"
        self.source.mkdir()
        self.wheels = directory
        own = ROOT / ".cache" / "uv" / "bin" / "uv"
        self.uv = str(own) if own.exists() else str(shutil.which("uv"))
        self.server = wheel(directory, "server_set", gunicorn="", shared="whose = 'server'\n")

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.source / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def build(
        self,
        identity: str = "r1",
        command: str = "",
        source: dict[str, Any] | None = None,
        credentials: dict[str, str] | None = None,
        server: str = "gunicorn",
        **options: Any,
    ) -> Path:
        """Build a release of the source, which is sent as a path is."""
        sent = self.wheels / "sent.tar"
        archive(self.source, sent)
        inputs = Inputs(source or {"digest": "x"}, "system", command, server, self.server, **options)
        build(self.layout, identity, inputs, None if source else str(sent), credentials, self.uv)
        return self.layout.release(identity)

    def python(self, release: Path, script: str) -> str:
        command = [release / ".venv" / "bin" / "python", "-c", script]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@pytest.fixture
def bench(tmp_path: Path, me: dict[str, str], monkeypatch: pytest.MonkeyPatch, sandboxed: Callable[..., Any]) -> Bench:
    monkeypatch.setattr(releases, "BUILD_USER", me["owner"])
    return Bench(tmp_path, sandboxed)


class TestBuild:
    def test_from_hashed_requirements(self, bench: Bench) -> None:
        bench.write(requirements__txt=wheel(bench.wheels, "locked", shared="whose = 'locked'\n"), main__py="app = 1\n")
        (bench.source / "main.py").chmod(0o777)
        began = time.time()
        release = bench.build(command='python -c \'import shared; open("built", "w").write(shared.whose)\'')
        assert json.loads((release / "complete").read_text()) == {
            "version": "",
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
        assert sorted(path.name for path in release.iterdir()) == [
            ".venv",
            "complete",
            "manifest",
            "sbom.json",
            "server",
            "server.txt",
            "src",
        ]
        assert list((release / "src" / "__pycache__").glob("main.*.pyc"))
        listed = json.loads((release / "sbom.json").read_text())["components"]
        installed = {entry["purl"]: entry["properties"][0]["value"] for entry in listed if "purl" in entry}
        assert installed == {"pkg:pypi/locked@1.0": ".venv", "pkg:pypi/server-set@1.0": "server"}
        assert all("hashes" in entry for entry in listed if "purl" in entry)

    def test_compiles_what_the_live_release_has_not_compiled(self, bench: Bench) -> None:
        same, broken = "n = 1\n", "n = = 1\n"
        bench.write(
            requirements__txt=wheel(bench.wheels, "one", same=same, changed="n = 1\n", gone="n = 1\n")
            + wheel(bench.wheels, "two", broken=broken)
        )
        first = bench.build()
        bench.layout.live.parent.mkdir(exist_ok=True)
        (bench.layout.home / "slots/blue").mkdir(parents=True)
        (bench.layout.home / "slots/blue/release").symlink_to("../../releases/r1")
        bench.layout.live.symlink_to("slots/blue")
        second = bench.wheels / "second"
        second.mkdir()
        bench.write(
            requirements__txt=wheel(second, "one", same=same, changed="n = 2\n", new="n = 2\n")
            + wheel(bench.wheels, "two", broken=broken)
        )
        release = bench.build("r2")
        packages = next(release.glob(".venv/lib/python*/site-packages"))
        before = next(first.glob(".venv/lib/python*/site-packages"))
        for module in ("same", "changed", "new"):
            (compiled,) = (packages / "__pycache__").glob(f"{module}.*.pyc")
            # What Python compares: the time and the size of the source.
            noted = struct.unpack("<4xLL", compiled.read_bytes()[4:16])
            source = (packages / f"{module}.py").stat()
            assert noted == (int(source.st_mtime), source.st_size)
        assert not list((packages / "__pycache__").glob("gone.*"))
        assert not list((packages / "__pycache__").glob("broken.*"))
        times = {name: (packages / f"{name}.py").stat().st_mtime_ns for name in ("same", "changed")}
        assert times["same"] == (before / "same.py").stat().st_mtime_ns
        assert times["changed"] != (before / "changed.py").stat().st_mtime_ns
        assert list((release / "server" / "__pycache__").glob("gunicorn.*.pyc"))
        assert bench.python(release, "import same, changed, new; print(same.n, changed.n, new.n)") == "1 2 2"
        # And it is compiled text that Python takes, with the name that the source has now.
        assert bench.python(release, "import same, sys; print(same.__loader__.get_code('same').co_filename)") == str(
            packages / "same.py"
        )

    def test_that_there_is_no_room_for_what_is_compiled_already_is_not_passed_over(self, tmp_path: Path) -> None:
        for name in ("before", "after"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "same.py").write_text(f"n = '{'x' * 9000}'\n")
        py_compile.compile(str(tmp_path / "before" / "same.py"))
        with small_files(5000), pytest.raises(OSError, match="File too large"):
            bytecode.take_over(tmp_path / "after", tmp_path / "before")
        assert bytecode.take_over(tmp_path / "after", tmp_path / "before") == 0

    def test_foreign_code_runs_shut_in_and_may_write_to_the_release_and_its_cache_alone(self, bench: Bench) -> None:
        bench.write(requirements__txt=wheel(bench.wheels, "locked", shared=""))
        release = bench.build(command="true")
        assert len(bench.commands()) >= 5
        for command, properties, _ in bench.commands():
            assert f"ReadWritePaths={release} {bench.layout.cache}" in properties, command
            assert [text for text in properties if text.startswith("ReadWritePaths=")] == properties[-1:]
            assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet="} <= set(properties)
            assert "InaccessiblePaths=-/etc/slipway -/var/lib/slipway -/run/slipway" in properties

    def test_the_shell_alone_sees_to_what_a_build_command_holds(self, bench: Bench) -> None:
        bench.write(requirements__txt="# --hash=\n")
        bench.build(
            command="HOME=elsewhere; for x in a%n; do echo \"${HOME} ${x} '$$' \\$5\" >told; done; test $$ -gt 1"
        )
        told = (bench.layout.release("r1") / "src" / "told").read_text()
        assert re.fullmatch(r"elsewhere a%n '\d+' \$5\n", told)

    def test_a_complete_one_is_left_alone(self, bench: Bench) -> None:
        (bench.layout.release("r1")).mkdir(parents=True)
        (bench.layout.release("r1") / "complete").touch()
        bench.build()
        assert bench.commands() == []

    def test_a_project_that_locks_its_own_server_gets_no_other(self, bench: Bench) -> None:
        server = wheel(bench.wheels, "own", **{"gunicorn.__init__": "", "uvicorn_worker.__init__": ""})
        bench.write(requirements__txt=server)
        release = bench.build()
        assert not (release / "server").exists()
        assert "site-packages" in bench.python(release, "import gunicorn; print(gunicorn.__file__)")

    @pytest.mark.parametrize(
        ("server", "locked"),
        [("gunicorn", ["gunicorn"]), ("gunicorn-wsgi", ["uvicorn"]), ("uvicorn", ["hypercorn"]), ("waitress", [])],
    )
    def test_a_project_that_locks_another_server_gets_its_own(
        self, bench: Bench, server: str, locked: list[str]
    ) -> None:
        modules = {f"{name}.__init__": "" for name in ["own", *locked]}
        bench.write(requirements__txt=wheel(bench.wheels, "own", **modules))
        assert (bench.build(server=server) / "server").exists()

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

    PROJECT = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
fast = ["one"]
[dependency-groups]
metrics = ["two"]
dev = ["three"]
[tool.uv]
package = false
[tool.uv.sources]
one = {{path = "{0}/one-1.0-py3-none-any.whl"}}
two = {{path = "{0}/two-1.0-py3-none-any.whl"}}
three = {{path = "{0}/three-1.0-py3-none-any.whl"}}
"""

    def project(self, bench: Bench, *lock: str) -> None:
        for name in ("one", "two", "three"):
            wheel(bench.wheels, name, **{name: ""})
        bench.write(pyproject__toml=self.PROJECT.format(bench.wheels))
        subprocess.run([bench.uv, "lock", "--quiet", "--offline", *lock], cwd=bench.source, check=True)

    @pytest.mark.parametrize(
        ("chosen", "installed"),
        [
            ({}, set()),
            ({"extras": ["fast"]}, {"one"}),
            ({"groups": ["metrics"]}, {"two"}),
            ({"extras": ["fast"], "groups": ["dev", "metrics"]}, {"one", "two", "three"}),
        ],
    )
    def test_extras_and_groups_of_uv_lock(self, bench: Bench, chosen: dict[str, Any], installed: set[str]) -> None:
        self.project(bench)
        (packages,) = bench.build(**chosen).glob(".venv/lib/*/site-packages")
        assert {name for name in ("one", "two", "three") if (packages / f"{name}.py").exists()} == installed

    @pytest.mark.parametrize("chosen", [{"extras": ["fast"]}, {"groups": ["metrics"], "unlocked": True}])
    def test_extras_and_groups_are_refused_with_requirements(self, bench: Bench, chosen: dict[str, Any]) -> None:
        bench.write(requirements__txt="# --hash=\n")
        with pytest.raises(Failed, match=r"extras and groups are chosen from uv\.lock, .*make a lock with: uv lock"):
            bench.build(**chosen)

    def test_an_extra_that_is_not_there(self, bench: Bench) -> None:
        self.project(bench)
        with pytest.raises(Failed, match=r"installing from uv\.lock failed(?s:.*)slow"):
            bench.build(extras=["slow"])

    def test_without_a_lock_if_that_is_wanted(self, bench: Bench) -> None:
        self.project(bench)
        (bench.source / "uv.lock").unlink()
        assert (bench.build(unlocked=True, extras=["fast"]) / "src" / "uv.lock").exists()
        (bench.source / "pyproject.toml").unlink()
        pinned = wheel(bench.wheels, "locked", shared="whose = 'locked'\n")
        bench.write(requirements__txt=pinned.partition(" --hash")[0])
        assert bench.python(bench.build("r2", unlocked=True), "import shared; print(shared.whose)") == "locked"

    def test_a_lock_that_does_not_match_is_refused_all_the_same(self, bench: Bench) -> None:
        self.project(bench)
        text = (bench.source / "pyproject.toml").read_text()
        bench.write(pyproject__toml=text.replace("dependencies = []", 'dependencies = ["one"]', 1))
        with pytest.raises(Failed, match=r"installing from uv\.lock failed"):
            bench.build(unlocked=True)

    def test_packages_of_the_distribution_have_to_be_there(self, bench: Bench) -> None:
        bench.write(requirements__txt="# --hash=\n")
        assert bench.build(packages=["dpkg", "coreutils"]).exists()
        with pytest.raises(Failed, match=r"^package libno-such-dev is not installed on this host; playbooks/site\.yml"):
            bench.build("r2", packages=["dpkg", "libno-such-dev"])
        with pytest.raises(Failed, match=r"^packages a-a, b-b are not installed"):
            bench.build("r2", packages=["a-a", "b-b"])

    @pytest.mark.parametrize("password", ["canary", 'canary "#\\ $x: @%é'])
    def test_an_index_of_ones_own_is_asked_with_its_login(
        self, bench: Bench, guarded: Callable[..., Any], password: str
    ) -> None:
        """The requirements name a public index that has nothing, since tests have no network."""
        pinned = wheel(bench.wheels, "locked", shared="whose = 'locked'\n")
        own = index_of(bench.wheels, "own", "locked")
        public = guarded(index_of(bench.wheels, "public"), "", "")
        private = guarded(own, "deploy", password)
        digest = pinned.split("--hash=")[1]
        bench.write(requirements__txt=f"--index-url {public.url}\nlocked==1.0 --hash={digest}")
        options = {"index": {"url": private.url, "username": "deploy"}, "credentials": {"index.password": password}}
        release = bench.build(command='test -z "$CREDENTIALS_DIRECTORY$NETRC$UV_INDEX"', **options)
        assert bench.python(release, "import shared; print(shared.whose)") == "locked"
        assert ("/locked/", True) in private.seen and not any(allowed for _, allowed in public.seen)
        assert "canary" not in json.dumps(bench.commands())
        assert subprocess.run(["grep", "-r", "canary", release, bench.layout.cache], check=False).returncode == 1
        shutil.rmtree(bench.layout.cache)
        options["credentials"] = {"index.password": "wrong"}
        with pytest.raises(Failed, match=r"or does not show to index\.username, counts as not found"):
            bench.build("r2", **options)

    def test_a_uv_lock_names_its_indexes_itself_and_takes_the_login(
        self, bench: Bench, guarded: Callable[..., Any]
    ) -> None:
        wheel(bench.wheels, "locked", shared="whose = 'locked'\n")
        private = guarded(index_of(bench.wheels, "own", "locked"), "deploy", "canary")
        bench.write(
            pyproject__toml='[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
            'dependencies = ["locked"]\n[tool.uv]\npackage = false\n'
            f'[[tool.uv.index]]\nurl = "{private.url}"\ndefault = true\n'
        )
        netrc = bench.wheels / "netrc"
        netrc.write_text("machine 127.0.0.1 login deploy password canary\n")
        subprocess.run([bench.uv, "lock", "-q"], cwd=bench.source, check=True, env={**os.environ, "NETRC": str(netrc)})
        # Not quite the same address, as users have it.
        options = {"index": {"url": f"{private.url}/", "username": "deploy"}}
        release = bench.build(**options, credentials={"index.password": "canary"})
        assert bench.python(release, "import shared; print(shared.whose)") == "locked"
        assert "canary" not in json.dumps(bench.commands())

    @pytest.mark.parametrize(
        ("files", "command", "reason"),
        [
            ({"main__py": ""}, "", "neither uv.lock nor requirements.txt.*make one with: uv lock"),
            ({"pyproject__toml": ""}, "", "no lock.*make one with: uv lock; or set unlocked: true"),
            (
                {"requirements__txt": "fastapi==1.0\n"},
                "",
                "requirements.txt has no hashes.*uv pip compile --generate-hashes.*or set unlocked: true",
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
        ids=["no lock", "only a pyproject.toml", "no hashes", "a wrong hash", "a build that fails"],
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

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("rm complete", "complete is gone"),
            ("rm src/main.py", "src/main.py is gone"),
            ("rm -r .venv", ".venv/"),
            (": >src/main.py", "src/main.py is not as it was built"),
            ("rm -r ../r1", "complete is gone"),
        ],
    )
    def test_one_that_is_damaged_is_built_anew_and_a_slot_that_holds_it_goes_on_with_it(
        self, bench: Bench, damage: str, said: str
    ) -> None:
        bench.write(requirements__txt=wheel(bench.wheels, "locked", shared=""), main__py="app = 1\n")
        release = bench.build()
        assert bench.layout.damage("r1") == ""
        link = bench.layout.slot("blue") / "release"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../releases/r1")
        bench.layout.live.symlink_to("slots/blue")
        (release / "src" / "lived").touch()
        subprocess.run(["/bin/sh", "-ec", damage], cwd=release, check=True)
        assert bench.layout.damage("r1").startswith(said)
        bench.build()
        assert bench.layout.damage("r1") == ""
        assert not (release / "src" / "lived").exists()
        aside = bench.layout.release_in("blue")
        assert aside is not None and aside.startswith(".r1.")
        assert (link / "src" / "lived").exists() == (damage != "rm -r ../r1")
        assert not bench.layout.is_complete(aside)
        # And goes, once no slot holds it.
        assert retire(bench.layout, 5, {aside, "r1"}, remove) == []
        assert retire(bench.layout, 5, {"r1"}, remove) == []
        assert os.listdir(bench.layout.releases) == ["r1"]

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
        monkeypatch.setattr(build, "__defaults__", (None, bench.uv))
        app = {
            "name": "shop",
            "release": "r1",
            "source": {"digest": "x"},
            "python": "system",
            "build": "",
            "server": "gunicorn",
            "requirements": "",
            "extras": [],
            "groups": [],
            "unlocked": False,
            "index": None,
            "packages": [],
            "credentials": {},
        }
        slots = Slots(bench.layout, Systemd())
        bench.write(main__py="")
        archive(bench.source, bench.wheels / "one.tar")
        with pytest.raises(Failed, match="the release cannot be built; nothing serves yet: the source has neither"):
            STATES["present"]({**app, "archive": str(bench.wheels / "one.tar")}, slots, False)
        bench.write(requirements__txt="# --hash=\n")
        archive(bench.source, bench.wheels / "two.tar")
        assert STATES["present"]({**app, "archive": str(bench.wheels / "two.tar")}, slots, False) == {"changed": True}
        assert bench.layout.is_complete("r1")
        assert slots.timings["build"] > 0
        assert STATES["present"](app, slots, False) == {"changed": False}


HELD = {"r5", "r2"}


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path)


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
        removed = retire(layout, keep, HELD, remove)
        assert sorted(os.listdir(layout.releases)) == wanted
        assert sorted([*removed, *wanted]) == [f"r{number}" for number in range(1, 8)]
        assert retire(layout, keep, HELD, remove) == []

    def test_killed_at_any_change_what_is_complete_is_whole(
        self, layout: Layout, tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
    ) -> None:
        whole = tmp_path / "whole"
        shutil.move(layout.home, whole)
        for number in itertools.count(1):
            shutil.rmtree(layout.home, ignore_errors=True)
            shutil.copytree(whole, layout.home, symlinks=True)
            killed = killed_at(number, lambda: retire(layout, 3, HELD, remove))
            for name in os.listdir(layout.releases):
                assert len(os.listdir(layout.release(name))) == 9 or not layout.is_complete(name)
            retire(layout, 3, HELD, remove)
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
        with pytest.raises(Failed, match=r"^the build failed with status 1$"):
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

    def test_a_journal_that_cannot_be_read_hides_no_other_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "journalctl").write_text("#!/bin/sh\necho no journal; exit 1\n")
        (tmp_path / "journalctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert Systemd().journal("x.service", 0.0).endswith("failed with status 1:\nno journal")

    def test_a_record_in_the_journal_is_shown_as_people_read_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = {"level": "error", "message": "no", "exception": "Traceback\nValueError: why", "pid": 1}
        (tmp_path / "said").write_text(f'plain\n["list"]\n7\n{{"level": 1}}\n{json.dumps(record)}\n{"x" * 700}\n')
        (tmp_path / "journalctl").write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
        (tmp_path / "journalctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        *lines, long = Systemd().journal("x.service", 0.0).splitlines()
        assert lines == ["plain", '["list"]', "7", '{"level": 1}', "error: no", "Traceback", "ValueError: why"]
        assert long == f"{'x' * 200} [...] {'x' * 350}"

    def test_last_lines(self) -> None:
        assert last_lines("\n a\nb\nc\n\n", 2) == "b\nc"
