"""A host before Slipway and after it, and what is left."""

from typing import Any

import pytest
from fixtures import pytest_collection_modifyitems, pytest_configure
from removing import HOSTS, Host, table

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]


@pytest.fixture(scope="module")
def removal(host: Any) -> Host:
    """The host."""
    return HOSTS.setdefault(str(host.backend.get_hostname()), Host(host))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was left on each host, and why."""
    terminalreporter.section("left after a removal")
    for line in table():
        terminalreporter.write_line(line)
