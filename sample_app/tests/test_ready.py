"""Alive and ready are two questions, and a fault is logged once."""

import json
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Environment, Server, migrate


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """Return an environment with SQLite, which a test can take away, and no Redis."""
    environment.pop("DATABASE_URL", None)
    environment.pop("REDIS_URL", None)
    return environment


@pytest.fixture
def file(environment: Environment) -> Path:
    return Path(environment["STATE_DIRECTORY"], "guestbook.sqlite3")


def ready(server: Server) -> tuple[int, dict[str, Any]]:
    answer = server.get("/ready")
    assert server.get("/health").status_code == 200
    return answer.status_code, answer.json()["checks"]


def test_a_database_that_goes_away_and_comes_back(
    environment: Environment, file: Path, start: Callable[..., Server]
) -> None:
    migrate(environment)
    server = start(environment)
    status, checks = ready(server)
    assert (status, checks["database"]["detail"]) == (200, "migrations at 0001")

    file.rename(file.with_suffix(".away"))
    status, checks = ready(server)
    assert (status, checks["database"]["ok"]) == (503, False)
    assert "unable to open database file" in checks["database"]["detail"]
    assert not file.exists()

    file.with_suffix(".away").rename(file)
    assert ready(server)[0] == 200


def test_migrations_have_to_be_at_head_or_beyond(
    environment: Environment, file: Path, start: Callable[..., Server]
) -> None:
    server = start(environment)
    status, checks = ready(server)
    assert status == 503
    assert checks["database"]["detail"] == "migrations: at None, this release needs 0001"

    migrate(environment)
    assert ready(server)[0] == 200

    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = '0002'")
    database.close()
    status, checks = ready(server)
    assert status == 200
    assert "newer than this release's 0001" in checks["database"]["detail"]


def test_redis_counts_where_it_is_configured(
    environment: Environment, start: Callable[..., Server]
) -> None:
    migrate(environment)
    server = start(environment | {"REDIS_URL": "redis://127.0.0.1:9"})
    status, checks = ready(server)
    assert status == 503
    assert (checks["database"]["ok"], checks["redis"]["ok"]) == (True, False)
    assert "127.0.0.1:9" in checks["redis"]["detail"]


def test_a_check_has_a_time_limit(environment: Environment, start: Callable[..., Server]) -> None:
    migrate(environment)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        server = start(environment | {"REDIS_URL": f"redis://127.0.0.1:{port}"})
        begin = time.monotonic()
        status, checks = ready(server)
        assert time.monotonic() - begin < 4
        assert (status, checks["redis"]["detail"]) == (503, "no answer within 2 s")


def test_what_no_handler_caught_is_one_record_and_a_plain_answer(
    environment: Environment, start: Callable[..., Server]
) -> None:
    server = start(environment)
    failed = server.request("GET", "/api/entries", headers={"x-request-id": "broken-1"})
    assert (failed.status_code, failed.headers["x-request-id"]) == (500, "broken-1")
    assert failed.json() == {"detail": "Internal Server Error"}

    records = [json.loads(line) for line in server.log.read_text().splitlines()]
    (record,) = [record for record in records if record["level"] == "error"]
    assert (record["request_id"], record["message"]) == ("broken-1", "GET /api/entries failed")
    assert (record["app"], record["release"], record["slot"]) == ("guestbook", "r1", "blue")
    assert "no such table: entries" in record["exception"]
