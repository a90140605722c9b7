"""Releases: what identifies one, and how one comes to lie complete and read-only on the host."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, make_directory, write
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Layout, run

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
UV = "/opt/slipway/uv/bin/uv"
PYTHONS = "/opt/slipway/python"
BUILD_USER = "slipway-build"
# What foreign code, such as a build backend or the user's own command, may do while a release is built.
SANDBOX = (
    f"User={BUILD_USER}",
    f"Group={BUILD_USER}",
    "UMask=0022",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "KeyringMode=private",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures=native",
    "InaccessiblePaths=-/etc/slipway -/var/lib/slipway -/run/slipway",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that makes a release what it is.

    Attributes:
        source: ``digest`` of the files of a path, or ``git`` and ``version``.
        python: "system" or a version such as "3.13".
        build: the user's own build command, or "".
        server: the text of Slipway's own hashed requirements for the server.
    """

    source: Mapping[str, Any]
    python: str
    build: str
    server: str

    def identify(self) -> str:
        """The release's id: twelve hexadecimal digits that are the same for the same input.

        Raises:
            Failed: the host cannot tell, because a git reference or the Python is not there.
        """
        source = self.source.get("digest") or commit_of(self.source["git"], self.source["version"])
        text = json.dumps([source, python_version(self.python), self.build, self.server])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def commit_of(url: str, version: str) -> str:
    """The commit that a tag, a branch or HEAD of a repository names now; a full commit is one already."""
    if _COMMIT.fullmatch(version):
        return version
    names = [f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}"]
    wanted = ["HEAD"] if version == "HEAD" else names
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_SSL_CAINFO": CERTIFICATES,
    }
    output = run(["git", "ls-remote", url, *wanted], f"source.git: reading {url}", environment, seconds=60)
    found = {name: commit for commit, name in (line.split("\t") for line in output.splitlines() if "\t" in line)}
    for name in wanted:
        if name in found:
            return found[name]
    raise Failed(f'source.version is "{version}": {url} has no tag or branch of this name')


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


def build(layout: Layout, identity: str, inputs: Inputs, archive: str | None, uv: str = UV) -> None:
    """Make a release from its inputs; one that is complete already is left alone.

    Args:
        layout: the app's paths.
        identity: the release's id.
        inputs: what it is made of.
        archive: the tar file with the source, for a path.
        uv: the program.

    Raises:
        Failed: it cannot be built. Nothing that serves has changed, and the next build starts afresh.
    """
    if layout.is_complete(identity):
        return
    release = layout.release(identity)
    if release.exists():
        shutil.rmtree(release)
    make_directory(release)
    make_directory(layout.cache)
    for path in (release, layout.cache):
        shutil.chown(path, BUILD_USER, BUILD_USER)
    try:
        _build(layout, release, inputs, archive, uv)
    except BaseException:
        # Half a release would be in nobody's way but that of a disk that is full.
        shutil.rmtree(release, ignore_errors=True)
        raise


def _build(layout: Layout, release: Path, inputs: Inputs, archive: str | None, uv: str) -> None:
    builder = _Builder(layout, release, uv)
    commit = builder.fetch(inputs.source, archive)
    python = python_path(inputs.python)
    builder.install(python)
    if not builder.brings_server():
        builder.add_server(inputs.server)
    if inputs.build:
        builder.shell(inputs.build, "build")
    builder.compile()
    _take_over(release)
    facts = {"commit": commit, "python": str(python)}
    write(File("complete", json.dumps(facts).encode()), release / "complete")


class _Builder:
    """The steps of one build, each in the sandbox of the build user."""

    def __init__(self, layout: Layout, release: Path, uv: str) -> None:
        self.layout = layout
        self.release = release
        self.source = release / "src"
        self.uv = uv
        self.environment = {
            "HOME": str(layout.cache),
            "UV_CACHE_DIR": str(layout.cache / "uv"),
            "UV_COMPILE_BYTECODE": "1",
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

    def sandboxed(self, command: Sequence[str], what: str, directory: Path | None = None) -> str:
        """Run a command as the build user, who can write to this release and the app's cache and to nothing else."""
        properties = [*SANDBOX, f"ReadWritePaths={self.release} {self.layout.cache}"]
        return run(
            [
                "systemd-run",
                "--quiet",
                "--wait",
                "--pipe",
                "--collect",
                f"--unit=slipway-{self.layout.name}-build",
                f"--working-directory={directory or self.release}",
                *(f"--property={text}" for text in properties),
                *(f"--setenv={name}={value}" for name, value in self.environment.items()),
                "--",
                *command,
            ],
            what,
        )

    def shell(self, command: str, what: str) -> str:
        """Run a line of shell in the source directory."""
        return self.sandboxed(["/bin/sh", "-ec", command], f"{what}: {command}", self.source)

    def fetch(self, source: Mapping[str, Any], archive: str | None) -> str:
        """Bring the source to ``src`` and return the commit, or "" for a path."""
        if archive:
            # Times are those of the unpacking: nginx makes ETags of them, and two releases must not share one.
            shutil.chown(archive, BUILD_USER, BUILD_USER)
            script = 'mkdir src && tar --extract --touch --no-same-owner --directory src < "$1"'
            shutil.move(archive, self.release / "source.tar")
            self.sandboxed(["/bin/sh", "-ec", script, "sh", str(self.release / "source.tar")], "unpacking the source")
            (self.release / "source.tar").unlink()
            return ""
        commit = commit_of(source["git"], source["version"])
        script = (
            "git init --quiet src && cd src && "
            # Not every server hands out a commit that no reference names; those give everything.
            '{ git fetch --quiet --depth 1 "$1" "$2" 2>/dev/null || '
            'git fetch --quiet --tags "$1" "+refs/heads/*:refs/remotes/origin/*"; } && '
            'git checkout --quiet --detach "$2" && rm -rf .git'
        )
        self.sandboxed(["/bin/sh", "-ec", script, "sh", source["git"], commit], f"source.git: fetching {commit}")
        return commit

    def install(self, python: Path) -> None:
        """Make the virtual environment from the project's lock, and from nothing else."""
        requirements = self.source / "requirements.txt"
        if (self.source / "uv.lock").is_file():
            self.sandboxed(
                [self.uv, "sync", "--locked", "--no-dev", "--no-editable", f"--python={python}"],
                "installing from uv.lock",
                self.source,
            )
        elif requirements.is_file():
            if "--hash=" not in requirements.read_text(errors="replace"):
                raise Failed(
                    "requirements.txt has no hashes, so it does not say what will be installed; "
                    "make it with: uv pip compile --generate-hashes requirements.in -o requirements.txt"
                )
            venv = str(self.release / ".venv")
            self.sandboxed([self.uv, "venv", "--quiet", f"--python={python}", venv], "making the virtual environment")
            self.sandboxed(
                [self.uv, "pip", "sync", "--require-hashes", f"--python={venv}/bin/python", str(requirements)],
                "installing from requirements.txt",
                self.source,
            )
        else:
            raise Failed(
                "the source has neither uv.lock nor requirements.txt, so nothing says what to install; "
                "make one with: uv lock"
            )

    def brings_server(self) -> bool:
        """Whether the project locks its own gunicorn with a worker for uvicorn."""
        packages = self._packages()
        worker = (packages / "uvicorn_worker").is_dir() or (packages / "uvicorn" / "workers.py").is_file()
        return worker and (packages / "gunicorn").is_dir()

    def add_server(self, requirements: str) -> None:
        """Install Slipway's own server beside the environment, behind it on sys.path: locked versions always win."""
        listed = self.release / "server.txt"
        # Foreign code has been at work here: what lies at this path by now may be a link to anywhere.
        write(File("server.txt", requirements.encode()), listed)
        target = self.release / "server"
        command = [self.uv, "pip", "install", "--no-deps", "--require-hashes", f"--target={target}"]
        python = f"--python={self.release}/.venv/bin/python"
        self.sandboxed([*command, python, f"--requirements={listed}"], "installing the server")
        self.sandboxed(
            ["/bin/sh", "-ec", 'echo "$1" > "$2"', "sh", str(target), str(self._packages() / "slipway-server.pth")],
            "adding the server",
        )

    def compile(self) -> None:
        """Compile the app's own modules, which saves each worker most of its start; a file that cannot be is left."""
        script = f'"$1" -m compileall -qq {self.source} || true'
        self.sandboxed(["/bin/sh", "-c", script, "sh", f"{self.release}/.venv/bin/python"], "compiling")

    def _packages(self) -> Path:
        return next((self.release / ".venv").glob("lib/python*/site-packages"))


def _take_over(release: Path) -> None:
    """Give a built release to root, read-only for all others, and on the disk for certain."""
    run(["chown", "--recursive", "--no-dereference", "root:root", str(release)])
    run(["chmod", "--recursive", "u=rwX,go=rX", str(release)])
    run(["sync", "--file-system", str(release)])


def retire(layout: Layout, keep: int, held: Collection[str]) -> list[str]:
    """Remove the oldest releases beyond ``keep``, and what was never finished.

    Args:
        layout: the app's paths.
        keep: how many stay.
        held: the ids of those that stay in any case.

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
        shutil.rmtree(path)
    return [path.name for path in removed]
