"""The guest book on a host that was bare before."""

from __future__ import annotations

import httpx
import pytest
from testinfra.host import Host


@pytest.fixture
def app() -> str:
    return "guestbook"


@pytest.fixture
def domain() -> str:
    return "guestbook.example"


def test_systemd_runs_with_no_failed_unit(host: Host) -> None:
    assert host.check_output("systemctl is-system-running") == "running"


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_https_answers(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_http_redirects(client: httpx.Client, domain: str) -> None:
    answer = client.get(f"http://{domain}/some?thing=1")
    assert (answer.status_code, answer.headers["location"]) == (301, f"https://{domain}/some?thing=1")
