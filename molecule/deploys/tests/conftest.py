"""The host that is deployed to, and the table of what that cost."""

import os
from typing import Any

import pytest
from deploying import ROWS, Deploys
from hosts import APP, Site


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each row counted."""
    terminalreporter.section("deploys under load")
    for row in ROWS:
        terminalreporter.write_line(" | ".join(row))


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted."""
    return os.environ.get("SLIPWAY_SOAK") == "1"


@pytest.fixture(scope="module")
def deploys(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Deploys:
    """The host with the app in its first release."""
    container = str(host.backend.get_hostname())
    certificate = host.file(f"/etc/slipway/certificates/{APP}/fullchain.pem").content_string
    return Deploys(host, Site(container, certificate), tmp_path_factory.mktemp("deploys"))
