"""The host from inside, and its site from outside."""

import re
from typing import Any

import pytest
from fixtures import deploys, pytest_collection_modifyitems, pytest_configure
from hosts import APP, Site, look
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

__all__ = ["deploys", "pytest_collection_modifyitems", "pytest_configure"]


class ByHost(LoadScopeScheduling):
    """What several processes share out are hosts, not tests."""

    def _split_scope(self, nodeid: str) -> str:
        return re.findall(r"ansible://.*?-\d+", nodeid)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByHost:
    """The order of tests: those of a host in one process, one after the other."""
    return ByHost(config, log)


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
