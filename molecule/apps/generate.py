"""Makes the apps of this scenario, none of which is ours, and locks what they need: `generate.py DIRECTORY`.

Run it with a Python that has what starters.txt pins: `scripts/testbed starters` makes one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from src.generator import ProjectGenerator
from src.models import Database, Framework, MemoryStore, ProjectConfig

UV = Path(__file__).resolve().parents[2] / ".cache/uv/bin/uv"


def main() -> None:
    directory = Path(sys.argv[1]).absolute()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    package(directory / "ara", "ara[server]==1.8.0")
    package(directory / "httpbin", "httpbin==0.10.4")
    litestar(directory / "users")
    fastapi(directory / "ledger")


def run(*command: str | Path, directory: Path, **environment: str) -> None:
    subprocess.run(
        command,
        cwd=directory,
        # The system's CAs, for machines behind a TLS-inspecting proxy.
        env={**os.environ, "UV_SYSTEM_CERTS": "1", **environment},
        stdin=subprocess.DEVNULL,
        check=True,
    )


def package(directory: Path, requirement: str) -> None:
    """An app that is a package: its source is a lock, and nothing else."""
    directory.mkdir()
    (directory / "requirements.in").write_text(f"{requirement}\n")
    command = (UV, "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--python", sys.executable)
    run(*command, "requirements.in", "--output-file", "requirements.txt", directory=directory)


def litestar(directory: Path) -> None:
    """What litestar-start makes of these answers, which it else asks for."""
    answers = ProjectConfig(
        name=directory.name,
        framework=Framework.LITESTAR,
        database=Database.SQLITE,
        memory_store=MemoryStore.NONE,
        plugins=["advanced_alchemy"],
        docker=False,
        docker_infra=False,
    )
    ProjectGenerator(answers, directory).generate()
    run(UV, "lock", "--quiet", "--python", sys.executable, directory=directory)


def fastapi(directory: Path) -> None:
    """What fastapi_template makes of these answers."""
    starter = Path(sys.executable).with_name("fastapi_template")
    answers = ["--name", directory.name, "--api-type", "rest", "--db", "postgresql", "--orm", "sqlalchemy"]
    run(
        *(starter, "--quiet", *answers, "--ci", "none", "--migrations", "--dummy", "--routers"),
        directory=directory.parent,
        # It insists on a uv, and keeps what it was told at home.
        PATH=f"{UV.parent}:{os.environ['PATH']}",
        HOME=str(directory.parent),
        # Where git fails it stops, and does not go on to install its linters and to run them.
        GIT_DIR=os.devnull,
    )
    run(UV, "lock", "--quiet", "--python", sys.executable, directory=directory)


if __name__ == "__main__":
    main()
