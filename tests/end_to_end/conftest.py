"""The running demo, as its visitors reach it: its addresses, and its certificate as the only one that is trusted."""

import os
import ssl
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from browsing import chromium
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

CERTIFICATE = "/etc/slipway/certificates/demo/fullchain.pem"


@pytest.fixture(scope="session")
def https() -> str:
    """The address of the demo, with no slash at its end."""
    return os.environ.get("SLIPWAY_DEMO_HTTPS", "https://localhost:8443").rstrip("/")


@pytest.fixture(scope="session")
def http() -> str:
    """The address that redirects to the other one."""
    return os.environ.get("SLIPWAY_DEMO_HTTP", "http://localhost:8080").rstrip("/")


@pytest.fixture(scope="session")
def container() -> str:
    """The container that the demo is."""
    return os.environ.get("SLIPWAY_DEMO_CONTAINER", "slipway-demo")


@pytest.fixture(scope="session", autouse=True)
def certificate(container: str) -> str:
    """The demo's certificate, fetched by a way that nobody between us and its port can change.

    For every test, so that each says clearly when there is no demo.
    """
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


# For a module and not the session: its event loop would be in the way of the tests that are coroutines.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Playwright, which drives the browsers."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, certificate: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that trusts the demo's certificate."""
    with chromium(playwright, tmp_path_factory.mktemp("home"), certificate) as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    """All that the browser had to complain of."""
    return []


@pytest.fixture
def context(browser: Browser, complaints: list[str]) -> Iterator[BrowserContext]:
    """A visitor with cookies of their own, and any number of tabs."""
    with browser.new_context(
        color_scheme="light",
        device_scale_factor=2,
        locale="en-GB",
        reduced_motion="reduce",
        viewport={"width": 1280, "height": 800},
    ) as context:
        context.on("weberror", lambda seen: complaints.append(f"exception: {seen.error}"))
        context.on("requestfailed", lambda seen: complaints.append(f"failed: {seen.url}: {seen.failure}"))
        context.on(
            "console",
            lambda seen: complaints.append(f"{seen.type}: {seen.text}") if seen.type in ("error", "warning") else None,
        )
        context.on(
            "response", lambda seen: complaints.append(f"{seen.status}: {seen.url}") if seen.status >= 400 else None
        )
        context.add_init_script("""
            addEventListener("securitypolicyviolation",
              (event) => console.error(`blocked: ${event.effectiveDirective} ${event.blockedURI}`))
        """)
        yield context
