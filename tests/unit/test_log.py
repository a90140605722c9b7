"""What servers and apps say, line by line: under a real gunicorn, with the oldest and the newest servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slipway_log
from test_worker import FILES, Server, python, run, serve
from worker_client import Client, WebSocket

__all__ = ["python", "serve"]

CONFIGURATION = """
import os, slipway_log
os.environ["SLIPWAY_LOG_LEVEL"] = "{}"
slipway_log.configure()
logger_class = slipway_log.gunicorn_logger
"""
ALWAYS = {"time", "level", "logger", "message", "app", "release", "slot", "pid"}
WSGI_APP = """
import logging

def app(environ, start_response):
    import slipway_log
    slipway_log.enter_environ(environ)
    logging.getLogger("shop").info("sold")
    print("by wsgi.errors", file=environ["wsgi.errors"], flush=True)
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""


class Talk:
    """A server whose log is set up as Slipway sets it up, and what it says."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def lines(self) -> list[str]:
        """All that was said so far, without a line that is being written."""
        return self.server.log.read_text().rpartition("\n")[0].splitlines()

    def records(self) -> list[dict[str, Any]]:
        """The same, each of which has to be a line of JSON."""
        return [json.loads(line) for line in self.lines()]

    def of(self, path: str, count: int = 1) -> list[dict[str, Any]]:
        """The records of one request for a path, once there are as many."""
        before = len(self.lines())
        run(asyncio.wait_for(ask(self.server.path, path), 20))
        mine: list[dict[str, Any]] = []

        def found() -> bool:
            mine[:] = [record for record in self.records()[before:] if record.get("request_id") == f"id-of{path}"]
            return len(mine) >= count

        self.server.wait(found, f"{count} records of {path}")
        assert len(mine) == count
        return mine


@pytest.fixture(autouse=True)
def _before_any_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    # setuptools warns gunicorn 20.1 while that is imported.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::UserWarning:gunicorn.util")


async def ask(socket: str, path: str) -> None:
    await Client(socket).request(path=path, fresh=True)


async def reload(server: Server) -> None:
    await server.reload()


@pytest.fixture
def talk(serve: Callable[..., Server], tmp_path: Path) -> Talk:
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION.format("info"))
    return Talk(serve("--config", str(tmp_path / "gunicorn.conf.py")))


def test_each_record_of_server_and_app_is_one_line_of_json(talk: Talk) -> None:
    (record,) = talk.of("/log/info")
    assert set(record) == ALWAYS | {"request_id"}
    assert (record["app"], record["release"], record["slot"]) == ("shop", "r1", "blue")
    assert (record["level"], record["logger"], record["message"]) == ("info", "shop", "sold 3\napples à 1 €")
    assert record["pid"] in talk.server.workers()
    assert record["time"].endswith("+00:00")

    (failed,) = talk.of("/log/exception")
    assert (failed["level"], failed["message"]) == ("error", "the sale failed")
    assert failed["exception"].startswith("Traceback") and "ValueError: one\ntwo\nStack (most" in failed["exception"]
    (uncaught,) = talk.of("/log/uncaught")
    assert (uncaught["logger"], uncaught["level"]) == ("uvicorn.error", "error")
    assert uncaught["exception"].rstrip().endswith("ValueError: one\ntwo")
    (warned,) = talk.of("/log/warning")
    assert (warned["level"], warned["logger"]) == ("warning", "py.warnings") and "UserWarning: old" in warned["message"]
    talk.of("/", 0)
    talk.of("/log/debug", 0)

    # What is of no request has no id, and none that is left from one before.
    run(reload(talk.server))
    records = talk.records()
    assert {"gunicorn.error", "uvicorn.error"} <= {record["logger"] for record in records if set(record) == ALWAYS}


def test_an_exception_of_a_thread_is_a_record_too(talk: Talk) -> None:
    run(asyncio.wait_for(ask(talk.server.path, "/log/thread"), 20))
    talk.server.wait(lambda: any(record["logger"] == "slipway" for record in talk.records()), "the record")
    (record,) = [record for record in talk.records() if record["logger"] == "slipway"]
    assert (record["level"], record["message"]) == ("critical", "nobody caught this")
    assert "ValueError" in record["exception"]


def test_what_cannot_be_told_is_told_as_such_and_what_is_long_is_clipped(talk: Talk) -> None:
    odd = [record["message"] for record in talk.of("/log/odd", 3)]
    assert odd == [
        "%d of %s (what it was to say cannot be told: TypeError)",
        "Odd (what it was to say cannot be told: RuntimeError)",
        "{'no': b'text', 'half': '\\udc80'}",
    ]
    for path in ("/log/long", "/log/halves"):
        (clipped,) = talk.of(path)
        assert " [...] " in clipped["message"]
    # Longer ones are cut in pieces by journald.
    assert max(len(line.encode()) for line in talk.lines()) < 48 * 1024


def test_an_app_that_sets_logging_up_keeps_its_way_and_no_record_comes_twice(talk: Talk) -> None:
    run(asyncio.wait_for(ask(talk.server.path, "/log/own"), 20))
    talk.server.wait(lambda: "own mine" in talk.lines(), "the app's own line")
    assert not [line for line in talk.lines() if '"mine"' in line]


def test_another_level_comes_with_a_reload(talk: Talk, tmp_path: Path) -> None:
    async def reload_with(level: str) -> None:
        (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION.format(level))
        before = await talk.server.reload()
        await asyncio.to_thread(talk.server.wait, lambda: not before & talk.server.workers(), "those before are gone")

    run(reload_with("debug"))
    (record,) = talk.of("/log/debug")
    assert record["level"] == "debug"
    run(reload_with("error"))
    before = len(talk.lines())
    talk.of("/log/info", 0)
    (record,) = talk.of("/log/exception")
    assert record["level"] == "error"
    run(reload_with("error"))
    # The server keeps to it as well, and says nothing of the reload.
    assert [record["message"] for record in talk.records()[before:]] == ["the sale failed"]


def test_a_websocket_has_the_id_of_its_request(talk: Talk) -> None:
    scope = {"type": "websocket", "headers": [(b"host", b"x"), (b"x-request-id", b"id-7")]}
    slipway_log.enter_scope(scope)
    assert slipway_log.request_id.get() == "id-7"
    slipway_log.enter_scope({"headers": []})
    assert slipway_log.request_id.get() == ""

    async def work() -> None:
        connection = await WebSocket.open(talk.server.path)
        assert (await connection.echo("here")).endswith("here")

    run(work())


def test_wsgi_has_ids_and_no_line_for_each_request(python: Path, tmp_path: Path) -> None:
    (tmp_path / "shop_wsgi.py").write_text(WSGI_APP)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION.format("info"))
    log = tmp_path / "log"
    command = [str(python), "-m", "gunicorn", "--config=gunicorn.conf.py", "--worker-class=gthread", "--bind=unix:s"]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, "shop_wsgi:app"],
            cwd=tmp_path,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": f"{FILES}:{tmp_path}", "SLIPWAY_APP": "shop"},
        )
    try:
        deadline = time.monotonic() + 30
        while "Booting" not in log.read_text() or not (tmp_path / "s").exists():
            assert time.monotonic() < deadline and server.poll() is None, log.read_text()
            time.sleep(0.05)
        run(asyncio.wait_for(ask(str(tmp_path / "s"), "/x"), 20))
    finally:
        server.terminate()
        assert server.wait(30) == 0
    *records, said = sorted(log.read_text().splitlines(), key=lambda line: line == "by wsgi.errors")
    assert said == "by wsgi.errors"
    mine = [record for record in map(json.loads, records) if "request_id" in record]
    assert [(record["logger"], record["message"], record["request_id"]) for record in mine] == [
        ("shop", "sold", "id-of/x")
    ]
