"""Releases: what identifies one, and how one comes to lie complete and read-only on the host."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import inspect
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.slipway.asgi.plugins.module_utils import bytecode, sbom
from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, make_directory, point, write
from ansible_collections.slipway.asgi.plugins.module_utils.git import Repository
from ansible_collections.slipway.asgi.plugins.module_utils.host import MANIFEST, SLOTS, Failed, Layout, run
from ansible_collections.slipway.asgi.plugins.module_utils.sandbox import BUILD_USER, CERTIFICATES, end, sandboxed

UV = "/opt/slipway/uv/bin/uv"
PYTHONS = "/opt/slipway/python"
# What a project that locks its own server has in its environment, one of each; of most, what is called like the server.
_SERVERS = {
    "gunicorn": (("gunicorn",), ("uvicorn_worker", "uvicorn/workers.py")),
    "gunicorn-wsgi": (("gunicorn",),),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that makes a release what it is, and what it takes to make it.

    Attributes:
        source: ``digest`` of the files of a path, or ``git`` and ``version``, a full commit, with what else a
            repository needs.
        python: "system" or a version such as "3.13".
        build: the user's own build command, or "".
        server: the name of the server.
        requirements: the text of Slipway's own hashed requirements for it.
        extras: the project's extras that are installed.
        groups: its dependency groups.
        unlocked: whether a project without a lock may be installed.
        packages: the distribution's packages that have to be there.
        index: ``url`` of a package index, and the ``username`` there, or nothing.
    """

    source: Mapping[str, Any]
    python: str
    build: str
    server: str
    requirements: str
    extras: Sequence[str] = ()
    groups: Sequence[str] = ()
    unlocked: bool = False
    packages: Sequence[str] = ()
    index: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def identify(self) -> str:
        """The release's id: twelve hexadecimal digits that are the same for the same input.

        Raises:
            Failed: the host cannot tell, because the Python is not there.
        """
        source = self.source.get("digest") or self.source["version"]
        chosen = [sorted(self.extras), sorted(self.groups), self.unlocked]
        text = json.dumps([source, python_version(self.python), self.build, self.requirements, *chosen])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def basis_of(source: Path, unlocked: bool, chosen: bool) -> tuple[str, bool]:
    """What a source is installed from.

    Args:
        source: its directory, on the controller or on the host.
        unlocked: whether something that is no lock may do.
        chosen: whether extras or groups are asked for.

    Returns:
        The name of the file, and whether it is a lock.

    Raises:
        Failed: nothing says what to install, or not with certainty.
    """
    requirements = source / "requirements.txt"
    if (source / "uv.lock").is_file():
        return "uv.lock", True
    if requirements.is_file():
        if chosen:
            raise Failed(
                "extras and groups are chosen from uv.lock, and the source has a requirements.txt in its place; "
                "make a lock with: uv lock; or leave extras and groups out"
            )
        hashed = "--hash=" in requirements.read_text(errors="replace")
        if not (hashed or unlocked):
            raise Failed(
                "requirements.txt has no hashes, so it does not say what will be installed; make it with: "
                "uv pip compile --generate-hashes requirements.in -o requirements.txt; "
                "or set unlocked: true to install what is newest on the day of the build"
            )
        return requirements.name, hashed
    if not (source / "pyproject.toml").is_file():
        raise Failed(
            "the source has neither uv.lock nor requirements.txt, so nothing says what to install; "
            "make one with: uv lock"
        )
    if not unlocked:
        raise Failed(
            "the source has a pyproject.toml and no lock, so nothing says which versions to install; "
            "make one with: uv lock; or set unlocked: true to install what is newest on the day of the build"
        )
    return "pyproject.toml", False


def python_path(wanted: str) -> Path:
    """The interpreter for a wanted Python: the distribution's where it is that version, else one that uv manages."""
    if wanted == "system":
        return Path("/usr/bin/python3").resolve()
    own = Path(f"/usr/bin/python{wanted}")
    if own.exists():
        return own
    managed = sorted(glob.glob(f"{PYTHONS}/cpython-{wanted}.*/bin/python{wanted}"), key=_numbers)
    if not managed:
        raise Failed(f'python is "{wanted}": this host has no Python {wanted}, neither its own nor one made by uv')
    return Path(managed[-1])


def python_version(wanted: str) -> str:
    """What distinguishes one interpreter from the next: its path, which holds the version."""
    return str(python_path(wanted))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def build(
    layout: Layout,
    identity: str,
    inputs: Inputs,
    archive: str | None,
    credentials: Mapping[str, str] | None = None,
    uv: str = UV,
) -> None:
    """Make a release from its inputs; one that is there and whole is left alone.

    Args:
        layout: the app's paths.
        identity: the release's id.
        inputs: what it is made of.
        archive: the tar file with the source, for a path.
        credentials: ``source.key``, ``source.token`` and ``index.password``, as far as there are any.
        uv: the program.

    Raises:
        Failed: it cannot be built. Nothing that serves has changed, and the next build starts afresh.
    """
    if not layout.damage(identity):
        return
    _insist_on(inputs.packages)
    release = layout.release(identity)
    # What a run that was killed has left, which goes on by itself.
    end(f"slipway-{layout.name}-build")
    _make_room(layout, identity)
    make_directory(release)
    make_directory(layout.cache)
    for path in (release, layout.cache):
        shutil.chown(path, BUILD_USER, BUILD_USER)
    try:
        _build(layout, release, inputs, archive, credentials or {}, uv)
    except BaseException:
        # Half a release would be in nobody's way but that of a disk that is full.
        shutil.rmtree(release, ignore_errors=True)
        raise


def _make_room(layout: Layout, identity: str) -> None:
    """Take away what is left of a release; where a slot holds it, that goes on with it under another name."""
    release = layout.release(identity)
    holding = [slot for slot in SLOTS if layout.release_in(slot) == identity]
    if holding:
        aside = release.with_name(f".{identity}.{time.time_ns()}")
        if release.exists():
            # Without its marker nobody goes back to it.
            (release / "complete").unlink(missing_ok=True)
            release.rename(aside)
        for slot in holding:
            point(layout.slot(slot) / "release", f"../../releases/{aside.name}")
    elif release.exists():
        shutil.rmtree(release)


def _build(
    layout: Layout, release: Path, inputs: Inputs, archive: str | None, credentials: Mapping[str, str], uv: str
) -> None:
    builder = _Builder(layout, release, inputs, credentials, uv)
    commit = builder.fetch(archive)
    python = python_path(inputs.python)
    builder.install(python)
    if not builder.brings_server():
        builder.add_server()
    builder.compile_packages()
    if inputs.build:
        builder.shell(inputs.build, "build")
    builder.finish()
    _take_over(release)
    write(File(MANIFEST, json.dumps(_sizes(release)).encode()), release / MANIFEST)
    facts = {"version": inputs.source.get("called") or "", "commit": commit, "python": str(python)}
    write(File("complete", json.dumps(facts).encode()), release / "complete")


def _insist_on(packages: Sequence[str]) -> None:
    """Refuse to build where the distribution's packages are not there."""
    if not packages:
        return
    listed = run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"]).splitlines()
    missing = [name for name in packages if f"installed {name}" not in listed]
    if missing:
        names = f"package {missing[0]} is" if len(missing) == 1 else f"packages {', '.join(missing)} are"
        raise Failed(f"{names} not installed on this host; playbooks/site.yml installs what packages names")


class _Builder:
    """The steps of one build, each in the sandbox of the build user."""

    def __init__(self, layout: Layout, release: Path, inputs: Inputs, credentials: Mapping[str, str], uv: str) -> None:
        self.layout = layout
        self.release = release
        self.source = release / "src"
        self.inputs = inputs
        self.credentials = credentials
        self.uv = uv
        self.environment = {
            "HOME": str(layout.cache),
            "UV_CACHE_DIR": str(layout.cache / "uv"),
            "UV_LINK_MODE": "copy",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PROJECT_ENVIRONMENT": str(release / ".venv"),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON_INSTALL_DIR": PYTHONS,
            "GIT_SSL_CAINFO": CERTIFICATES,
            "GIT_TERMINAL_PROMPT": "0",
            "PIP_CERT": CERTIFICATES,
            "REQUESTS_CA_BUNDLE": CERTIFICATES,
            "SSL_CERT_FILE": CERTIFICATES,
            "VIRTUAL_ENV": str(release / ".venv"),
            "PATH": f"{release}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
        }

    def sandboxed(
        self,
        command: Sequence[str],
        what: str,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command as the build user, who can write to this release and the app's cache and to nothing else."""
        return sandboxed(
            f"slipway-{self.layout.name}-build",
            command,
            what,
            {**self.environment, **(environment or {})},
            directory or self.release,
            [self.release, self.layout.cache],
            credentials,
        )

    def shell(self, command: str, what: str) -> str:
        """Run a line of shell in the source directory."""
        return self.sandboxed(["/bin/sh", "-ec", command], f"{what}: {command}", self.source)

    def fetch(self, archive: str | None) -> str:
        """Bring the source to ``src`` and return the commit, or "" for a path."""
        if archive:
            # Times are those of the unpacking: nginx makes ETags of them, and two releases must not share one.
            shutil.chown(archive, BUILD_USER, BUILD_USER)
            script = 'mkdir src && tar --extract --touch --no-same-owner --directory src < "$1"'
            shutil.move(archive, self.release / "source.tar")
            self.sandboxed(["/bin/sh", "-ec", script, "sh", str(self.release / "source.tar")], "unpacking the source")
            (self.release / "source.tar").unlink()
            return ""
        repository = Repository(self.layout.name, self.inputs.source, self.credentials)
        commit = repository.commit(self.inputs.source["version"])
        repository.fetch(commit, self.release)
        return commit

    def install(self, python: Path) -> None:
        """Make the virtual environment from the project's lock, and from nothing else unless that is wanted."""
        inputs = self.inputs
        name, locked = basis_of(self.source, inputs.unlocked, bool(inputs.extras or inputs.groups))
        if name == "requirements.txt":
            self._install_requirements(python, self.source / name, locked)
        else:
            self._sync(python, name, locked)

    def _sync(self, python: Path, name: str, locked: bool) -> None:
        """Install a project by what ``name`` says; a lock names its indexes itself."""
        chosen = [f"--extra={extra}" for extra in self.inputs.extras]
        chosen += [f"--group={group}" for group in self.inputs.groups]
        if "dev" not in self.inputs.groups:
            chosen.append("--no-dev")
        command = [self.uv, "sync", *(["--locked"] if locked else []), *chosen, "--no-editable", f"--python={python}"]
        self._fetching(command, f"installing from {name}", {} if locked else self._index())

    def _install_requirements(self, python: Path, requirements: Path, hashed: bool) -> None:
        venv = str(self.release / ".venv")
        self.sandboxed([self.uv, "venv", "--quiet", f"--python={python}", venv], "making the virtual environment")
        # What is not locked leaves to uv what its requirements need in turn.
        command = ["sync", "--require-hashes", str(requirements)] if hashed else ["install", "-r", str(requirements)]
        self._fetching(
            [self.uv, "pip", *command, f"--python={venv}/bin/python"],
            "installing from requirements.txt",
            self._index(hashed),
        )

    def _index(self, hashed: bool = False) -> dict[str, str]:
        """The environment in which uv asks the app's own index first.

        What is pinned by hash may come from any index that has it; of all else, uv takes nothing from the public one
        that the app's own index has in whatever version.
        """
        if not self.inputs.index:
            return {}
        strategy = {"UV_INDEX_STRATEGY": "unsafe-best-match"} if hashed else {}
        return {"UV_INDEX": self.inputs.index["url"], **strategy}

    def _fetching(self, command: Sequence[str], what: str, environment: Mapping[str, str]) -> None:
        """Run uv in the source directory with the login for the app's own index."""
        index, password = self.inputs.index, self.credentials.get("index.password")
        credentials = {}
        if password:
            login = f"login {_quoted(index['username'])} password {_quoted(password)}"
            credentials["netrc"] = f"machine {urlsplit(index['url']).hostname} {login}\n"
            command = ["/bin/sh", "-c", 'NETRC=$CREDENTIALS_DIRECTORY/netrc exec "$@"', "sh", *command]
        try:
            self.sandboxed(command, what, self.source, environment, credentials)
        except Failed as error:
            if index and "not found in the package registry" in str(error):
                advice = f"what {index['url']} does not have, or does not show to index.username, counts as not found"
                raise Failed(f"{error}\n{advice}") from error
            raise

    def brings_server(self) -> bool:
        """Whether the project locks its own server."""
        packages = self._packages()
        needed = _SERVERS.get(self.inputs.server, ((self.inputs.server,),))
        return all(any((packages / path).exists() for path in paths) for paths in needed)

    def add_server(self) -> None:
        """Install Slipway's own server beside the environment, behind it on sys.path: locked versions always win."""
        listed = self.release / "server.txt"
        # Foreign code has been at work here: what lies at this path by now may be a link to anywhere.
        write(File("server.txt", self.inputs.requirements.encode()), listed)
        target = self.release / "server"
        command = [self.uv, "pip", "install", "--no-deps", "--require-hashes", f"--target={target}"]
        python = f"--python={self.release}/.venv/bin/python"
        self._fetching([*command, python, f"--requirements={listed}"], "installing the server", self._index(True))
        self.sandboxed(
            ["/bin/sh", "-ec", 'echo "$1" > "$2"', "sh", str(target), str(self._packages() / "slipway-server.pth")],
            "adding the server",
        )

    def compile_packages(self) -> None:
        """Compile what was installed, with what the live release has of it."""
        # What is live keeps the CPUs that it needs.
        processes = max(1, len(os.sched_getaffinity(0)) - round(os.getloadavg()[0]))
        held = self.layout.release_in(self.layout.live_slot() or "")
        before = os.devnull if held is None or self.layout.damage(held) else self.layout.release(held)
        arguments = [str(processes), str(self.release), str(before)]
        python = f"{self.release}/.venv/bin/python"
        self.sandboxed([python, "-IS", "-c", inspect.getsource(bytecode), *arguments], "compiling the packages")

    def finish(self) -> None:
        """Compile the app's own modules, which saves each worker most of its start; and write down what is installed.

        A file that cannot be compiled is left.
        """
        script = '"$1" -m compileall -qq "$2" || true; "$1" -IS -c "$3" "$4" "$5"'
        arguments = [f"{self.release}/.venv/bin/python", str(self.source), inspect.getsource(sbom), str(self.release)]
        self.sandboxed(["/bin/sh", "-ec", script, "sh", *arguments, self.layout.name], "compiling, and making the SBOM")

    def _packages(self) -> Path:
        return next((self.release / ".venv").glob("lib/python*/site-packages"))


def _quoted(text: str) -> str:
    """A word of a netrc file, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _sizes(release: Path) -> dict[str, int]:
    """How large each file of a release is, by its path; of a link, what it names."""
    found = {}
    for parent, directories, files in os.walk(release):
        for name in [*files, *directories]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                found[os.path.relpath(path, release)] = status.st_size
    return found


def _take_over(release: Path) -> None:
    """Give a built release to root, read-only for all others, and on the disk for certain."""
    run(["chown", "--recursive", "--no-dereference", "root:root", str(release)])
    run(["chmod", "--recursive", "u=rwX,go=rX", str(release)])
    run(["sync", "--file-system", str(release)])


def retire(layout: Layout, keep: int, held: Collection[str], remove: Callable[[Sequence[Path]], None]) -> list[str]:
    """Remove the oldest releases beyond ``keep``, and what was never finished.

    Args:
        layout: the app's paths.
        keep: how many stay.
        held: the ids of those that stay in any case.
        remove: takes directories away, now or later.

    Returns:
        The ids of the removed ones.
    """
    found = sorted(layout.releases.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    complete = [path.name for path in found if layout.is_complete(path.name)]
    spare = max(0, keep - len(set(held) & set(complete)))
    kept = {*held, *[name for name in complete if name not in held][:spare]}
    removed = [path for path in found if path.name not in kept]
    for path in removed:
        # Without its marker a release is no release: should this be cut off, the next run finds nothing half-made.
        (path / "complete").unlink(missing_ok=True)
    aside = [moved for path in removed if (moved := _aside(path))]
    if aside:
        remove(aside)
    return [path.name for path in removed if not path.name.startswith(".")]


def _aside(path: Path) -> Path | None:
    """Move a directory out of the way of the next build of the same release; remove it where it cannot be moved."""
    if path.name.startswith("."):
        return path
    try:
        return path.rename(path.with_name(f".{path.name}.{time.time_ns()}"))
    except OSError:
        # An overlay renames no directory of the file system beneath it.
        shutil.rmtree(path)
        return None
