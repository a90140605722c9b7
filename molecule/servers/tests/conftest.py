"""The table of what it costs to change from one server to another, and of what a reload costs with each."""

from pathlib import Path
from typing import Any

import pytest
from deploying import ROWS, SOCKETS, Deploys, table
from fixtures import pytest_collection_modifyitems, pytest_configure
from hosts import Site

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each row counted."""
    terminalreporter.section("servers")
    if ROWS:
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="module", params=["guestbook", "notes"])
def deploys(request: pytest.FixtureRequest, host: Any, tmp_path_factory: pytest.TempPathFactory) -> Deploys:
    """The host with one of its apps live."""
    app = str(request.param)
    certificate = host.file(f"/etc/slipway/certificates/{app}/fullchain.pem").content_string
    directory: Path = tmp_path_factory.mktemp(app)
    site = Site(str(host.backend.get_hostname()), certificate, f"{app}.example")
    return Deploys(host, site, directory, app, SOCKETS if app == "guestbook" else 0)
