"""Migrations on a real database."""

from tests.conftest import Environment, migrate, run


def test_up_agrees_with_the_models_and_down_leaves_nothing(environment: Environment) -> None:
    migrate(environment)
    checked = run(environment, "-m", "alembic", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert run(environment, "-m", "alembic", "downgrade", "base").returncode == 0
    assert run(environment, "-m", "alembic", "check").returncode != 0


def test_up_twice_is_nothing_new(environment: Environment) -> None:
    migrate(environment)
    again = run(environment, "-m", "alembic", "upgrade", "head")
    assert again.returncode == 0
    assert "Running upgrade" not in again.stdout
