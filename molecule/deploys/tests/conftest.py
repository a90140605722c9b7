"""The table of what deploys cost."""

from typing import Any

import pytest
from deploying import ROWS, table
from fixtures import SOAK, deploys, pytest_collection_modifyitems, pytest_configure

__all__ = ["deploys", "pytest_collection_modifyitems", "pytest_configure"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each row counted."""
    terminalreporter.section("deploys")
    if ROWS:
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted."""
    return SOAK
