"""The tables of what an intruder tried, and of where a secret was looked for."""

from typing import Any

import pytest
from fixtures import SOAK, pytest_collection_modifyitems, pytest_configure
from hardening import tables

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was seen."""
    terminalreporter.section("hardening")
    for line in tables():
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def container(host: Any) -> str:
    """The name of the host's container."""
    return str(host.backend.get_hostname())


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted."""
    return SOAK
