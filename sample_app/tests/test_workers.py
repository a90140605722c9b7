"""Two real worker processes: what one takes in, the other shows."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed

from guestbook import metrics
from tests.conftest import Environment, Server, migrate, receive


@pytest.fixture
def server(environment: Environment, start: Callable[..., Server]) -> Server:
    migrate(environment)
    return start(environment, workers=2)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def metric(server: Server, name: str, labels: str = "") -> float:
    text = server.get("/metrics").text
    return sum(
        float(value)
        for found, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        if labels in found
    )


def test_an_entry_crosses_from_one_worker_to_the_other_at_once(server: Server) -> None:
    with server.sockets_to_each_worker(2) as sockets:
        took_in = set()
        for number in range(40):
            text = f"number {number}"
            start = time.monotonic()
            took_in.add(server.sign(text).json()["pid"])
            for socket in sockets.values():
                receive(
                    socket,
                    lambda message, text=text: any(  # type: ignore[misc]
                        entry["message"] == text for entry in message.get("entries", [])
                    ),
                )
            assert time.monotonic() - start < 1
            if len(took_in) == 2 and number >= 4:
                break
        assert took_in == set(sockets)


def test_visitors_are_counted_over_all_workers_and_a_killed_worker_is_not(server: Server) -> None:
    with server.sockets_to_each_worker(2) as sockets:
        first, second = sockets
        receive(sockets[first], lambda message: message["visitors"] == 2)
        until(lambda: metric(server, "websockets_open") == 2)

        os.kill(second, signal.SIGKILL)
        receive(sockets[first], lambda message: message["visitors"] == 1)
        until(lambda: metric(server, "websockets_open") == 1)


def test_a_number_that_another_users_process_has_by_now_is_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge = tmp_path / "gauge_livesum_1.db"
    gauge.touch()

    # Root, as which tests may run, is refused nothing.
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError(pid, signal)

    monkeypatch.setattr(os, "kill", refuse)
    metrics._forget_dead_workers(str(tmp_path))
    assert not gauge.exists()


def test_metrics_are_right_over_all_workers(server: Server) -> None:
    answered = set()
    while len(answered) < 2:
        answered.add(server.get("/api/about").json()["pid"])
    before = metric(server, "http_requests_total", 'route="/api/about"')
    for _ in range(30):
        server.get("/api/about")
    server.request("DELETE", "/api/about")
    server.request("BREW", "/no/such/page")
    assert metric(server, "http_requests_total", 'route="/api/about",status="200"') == before + 30
    assert metric(server, "http_requests_total", 'status="405"') == 1
    assert metric(server, "http_requests_total", 'method="other",route="unmatched"') == 1
    assert metric(server, "http_request_seconds_count", 'route="/api/about"') == before + 31
    assert metric(server, "event_loop_lag_seconds_count") > 0


def test_the_server_closes_sockets_promptly_and_the_count_is_clean(server: Server) -> None:
    with server.sockets_to_each_worker(2) as sockets:
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        for socket in sockets.values():
            with pytest.raises(ConnectionClosed) as closed:
                receive(socket, lambda _: False)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        server.process.wait(10)
        assert time.monotonic() - start < 3
    records = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in records if json.loads(line)["level"] not in ("info",)], records


def test_workers_log_json_only_and_no_request(server: Server) -> None:
    with contextlib.suppress(httpx.HTTPError):
        server.get("/health")
    lines = server.log.read_text().splitlines()
    # The supervisor of uvicorn never imports the app; its workers do.
    records = [json.loads(line) for line in lines if not line.startswith("INFO:")]
    assert {record["logger"] for record in records} == {"uvicorn.error", "guestbook.main"}
    assert {record["release"] for record in records} == {"r1"}
    assert "/health" not in server.log.read_text()
