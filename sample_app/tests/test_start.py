"""What the app refuses to start without, and how it says so."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Environment, run

SERVE = ("-m", "uvicorn", "guestbook.main:app", "--port=0")
IMPORT = ("-c", "import guestbook.main")


def test_the_secret_comes_from_the_credentials(environment: Environment) -> None:
    assert run(environment, *IMPORT).returncode == 0


def test_the_greeting_comes_from_the_environment(environment: Environment) -> None:
    environment["GREETING"] = "Ahoy"
    shown = run(environment, "-c", "from guestbook.schemas import about; print(about().greeting)")
    assert shown.stdout == "Ahoy\n"


def test_without_its_secret_the_app_cannot_be_imported(environment: Environment) -> None:
    del environment["CREDENTIALS_DIRECTORY"]
    refused = run(environment, *IMPORT)
    assert refused.returncode != 0
    assert "session_key" in refused.stderr


def test_a_short_secret_is_refused_and_not_shown(environment: Environment) -> None:
    Path(environment["CREDENTIALS_DIRECTORY"], "session_key").write_text("hunter2")
    refused = run(environment, *IMPORT)
    assert refused.returncode != 0
    assert "session_key" in refused.stderr
    assert "hunter2" not in refused.stderr + refused.stdout


def test_a_database_of_another_kind_is_refused(environment: Environment) -> None:
    environment["DATABASE_URL"] = "mysql://user:secret@localhost/guestbook"
    refused = run(environment, *SERVE)
    assert refused.returncode != 0
    assert "mysql is none of" in refused.stdout
    assert "secret" not in refused.stdout + refused.stderr


@pytest.mark.parametrize("command", [SERVE, ("-m", "alembic", "upgrade", "head")])
def test_without_its_database_nothing_starts(
    environment: Environment, command: tuple[str, ...]
) -> None:
    # Port 9 is discard: nobody listens.
    environment["DATABASE_URL"] = "postgresql://guestbook:s3cret@127.0.0.1:9/guestbook"
    refused = run(environment, *command)
    assert refused.returncode != 0
    assert "s3cret" not in refused.stdout + refused.stderr
    if command == SERVE:
        assert "cannot start: no database at postgresql+asyncpg://guestbook:***@" in refused.stdout


def test_without_its_state_directory_the_app_does_not_start(environment: Environment) -> None:
    environment.pop("DATABASE_URL", None)
    shutil.rmtree(environment["STATE_DIRECTORY"])
    refused = run(environment, *SERVE)
    assert refused.returncode != 0
    assert "cannot start: no database at sqlite" in refused.stdout


def test_assets_are_built_without_any_secret(environment: Environment, tmp_path: Path) -> None:
    copy = Path(
        shutil.copytree(
            Path(__file__).parent.parent / "static", tmp_path / "static", ignore=lambda *_: {"dist"}
        )
    )
    code = f"import guestbook.assets as a; from pathlib import Path; a.build(Path({str(copy)!r}))"
    assert run({"PATH": environment["PATH"]}, "-c", code).returncode == 0
    assert (copy / "dist" / "manifest.json").exists()
