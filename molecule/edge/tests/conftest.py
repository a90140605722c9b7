"""What the tests of the edge share: a CA, a DNS, and the table of what they saw."""

import shlex
import subprocess
from typing import Any

import pytest
import yaml
from edging import ROWS, Edge, table
from fixtures import SOAK, pytest_collection_modifyitems, pytest_configure
from hosts import ROOT

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each row saw."""
    terminalreporter.section("edge")
    if ROWS:
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def edge(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """The host with its sites, and the CA and the DNS that it asks."""
    return Edge(host, tmp_path_factory.mktemp("edge"))


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted."""
    return SOAK


@pytest.fixture(scope="session")
def inventory() -> dict[str, Any]:
    """The scenario's inventory."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "molecule/edge/inventory.yml").read_text())
    return found


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate of one's own for api.edge.test."""
    directory = tmp_path_factory.mktemp("own")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=A\\ company "
        "-addext subjectAltName=DNS:api.edge.test -keyout own.key -out own.pem"
    )
    subprocess.run(shlex.split(command), cwd=directory, check=True, capture_output=True)
    return {"fullchain": str(directory / "own.pem"), "privkey": str(directory / "own.key")}
