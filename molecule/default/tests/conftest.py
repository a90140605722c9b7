"""The host from inside, and its site from outside."""

from typing import Any

import pytest
from fixtures import deploys, pytest_collection_modifyitems, pytest_configure
from hosts import APP, Site, look

__all__ = ["deploys", "pytest_collection_modifyitems", "pytest_configure"]


@pytest.fixture(scope="module")
def container(host: Any) -> str:
    """The name of the host's container."""
    return str(host.backend.get_hostname())


@pytest.fixture(scope="module")
def site(host: Any, container: str) -> Site:
    """The site from outside."""
    return Site(container, host.file(f"/etc/slipway/certificates/{APP}/fullchain.pem").content_string)


@pytest.fixture
def live(host: Any) -> dict[str, Any]:
    """What is live at the start of a test."""
    return look(host)
