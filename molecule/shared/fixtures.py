"""What the conftest of a scenario imports whose tests deploy."""

from pathlib import Path
from typing import Any

import pytest
from deploying import SOAK, Deploys
from hosts import APP, Site


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known by which a test says when it is meant."""
    config.addinivalue_line("markers", "only(name): for hosts whose name ends so; it is not there for others")
    config.addinivalue_line("markers", "soak: only where the full counts are wanted")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is not for a host, or too long for every day."""

    def meant(item: pytest.Item) -> bool:
        name: str = item.callspec.params["_testinfra_host"].backend.get_hostname()
        fits = all(name.endswith(mark.args[0]) for mark in item.iter_markers("only"))
        return fits and (SOAK or not item.get_closest_marker("soak"))

    items[:] = [item for item in items if meant(item)]


@pytest.fixture(scope="module")
def deploys(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Deploys:
    """The host with the app live."""
    container = str(host.backend.get_hostname())
    certificate = host.file(f"/etc/slipway/certificates/{APP}/fullchain.pem").content_string
    directory: Path = tmp_path_factory.mktemp("deploys")
    return Deploys(host, Site(container, certificate), directory)
