"""The running demo, as its visitors reach it: its addresses, and its certificate as the only one that is trusted."""

import os
import ssl
import subprocess
from collections.abc import Iterator

import httpx
import pytest

CERTIFICATE = "/etc/slipway/certificates/demo/fullchain.pem"


@pytest.fixture(scope="session")
def https() -> str:
    """The address of the demo, with no slash at its end."""
    return os.environ.get("SLIPWAY_DEMO_HTTPS", "https://localhost:8443").rstrip("/")


@pytest.fixture(scope="session")
def http() -> str:
    """The address that redirects to the other one."""
    return os.environ.get("SLIPWAY_DEMO_HTTP", "http://localhost:8080").rstrip("/")


@pytest.fixture(scope="session", autouse=True)
def certificate() -> str:
    """The demo's certificate, fetched by a way that nobody between us and its port can change.

    For every test, so that each says clearly when there is no demo.
    """
    container = os.environ.get("SLIPWAY_DEMO_CONTAINER", "slipway-demo")
    try:
        done = subprocess.run(
            ["docker", "exec", container, "cat", CERTIFICATE], capture_output=True, text=True, timeout=20, check=False
        )
    except FileNotFoundError:
        pytest.fail("These tests need the program docker: `make demo` brings it.", pytrace=False)
    if done.returncode != 0:
        pytest.fail(
            f"The demo is not running, start it with `make demo`. Container {container} says: {done.stderr.strip()}",
            pytrace=False,
        )
    return done.stdout


@pytest.fixture
def tls(certificate: str) -> ssl.SSLContext:
    """What trusts this certificate alone, and checks names and dates."""
    return ssl.create_default_context(cadata=certificate)


@pytest.fixture
def client(https: str, tls: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A visitor of the demo, with cookies."""
    with httpx.Client(base_url=https, verify=tls, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    """What runs the tests that are coroutines."""
    return "asyncio"
