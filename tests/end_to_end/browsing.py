"""A real browser, which has to accept the demo's certificate by itself: no TLS error is ever ignored."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]


def program(name: str, remedy: str = "`scripts/testbed browser` installs it") -> str:
    """Where a program lies."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"The browser test needs {name}: {remedy}.", pytrace=False)
    return found


@contextmanager
def chromium(playwright: Playwright, home: Path, pinned: str | None) -> Iterator[Browser]:
    """Start Chromium for a user with this home, who trusts what browsers trust and one certificate more.

    P: this very certificate is good for a server, for the names and the time that it states, and can issue no other.
    """
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    certutil = [program("certutil"), "-d", f"sql:{store}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    if pinned is not None:
        subprocess.run([*certutil, "-A", "-a", "-n", "demo", "-t", "P,,"], input=pinned, text=True, check=True)
    # Chromium's own sandbox does not start for root.
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    browser = playwright.chromium.launch(
        executable_path=program("chromium"), args=arguments, env={**environment, "HOME": str(home)}
    )
    with browser:
        yield browser


def visit(context: BrowserContext, https: str) -> Page:
    """Open the page in a new tab, and wait until it is live."""
    page = context.new_page()
    page.goto(https)
    expect(page.locator("#status")).to_have_text("Live")
    return page
