"""The table of faults."""

from collections.abc import Iterator
from typing import Any

import pytest
from deploying import Deploys
from faulting import ROWS, Faults, table
from fixtures import SOAK, deploys, pytest_collection_modifyitems, pytest_configure

__all__ = ["deploys", "pytest_collection_modifyitems", "pytest_configure"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each row saw."""
    terminalreporter.section("faults")
    if ROWS:
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def faults(deploys: Deploys) -> Iterator[Faults]:
    """The host with the app live, under a light load."""
    made = Faults(deploys)
    with made.load:
        yield made


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted."""
    return SOAK
