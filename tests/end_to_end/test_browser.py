"""The demo in a real browser, which has to accept its certificate by itself: no TLS error is ever ignored.

A picture is kept in .cache/screenshots; SLIPWAY_SCREENSHOT=docs/screenshot.png makes the README's anew.
"""

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / ".cache" / "screenshots" / "guestbook.png"
AT_ONCE = 2000
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
GUESTS = {
    "Margaret": "Both slots in sight, and the sea is calm.",
    "Tim": "HTTPS from the first minute. The web would approve.",
    "Radia": "Signed on one worker, read on the other. Not a packet lost.",
    "Edsger": "What cannot be changed cannot be changed by mistake.",
    "Ada": "Ahoy! First aboard the new release, and nobody had to reload.",
}


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


def visit(context: BrowserContext, https: str) -> Page:
    """Open the page in a new tab, and wait until it is live."""
    page = context.new_page()
    page.goto(https)
    expect(page.locator("#status")).to_have_text("Live")
    return page


def worker(page: Page) -> int:
    """The pid of the worker at the other end of a live page's WebSocket."""
    return int(page.locator("#pid").inner_text())


def visit_other_worker(context: BrowserContext, https: str, pid: int) -> Page:
    """Open tabs until one is served by another worker than this, and keep that one."""
    # The kernel deals out connections as it likes, for a while most of them to one worker.
    for _ in range(60):
        page = visit(context, https)
        if worker(page) != pid:
            return page
        page.close()
    pytest.fail(f"All of 60 tabs were served by worker {pid}.")


def sign(page: Page, name: str, message: str) -> int:
    """Sign the guest book as a visitor does, and return the entry's id."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Message").fill(message)
    with page.expect_response("**/api/entries") as response:
        page.get_by_role("button", name="Sign").click()
    assert response.value.status == 201
    return int(response.value.json()["id"])


def test_without_the_pin_the_browser_refuses_the_page(playwright: Playwright, https: str, tmp_path: Path) -> None:
    with (
        chromium(playwright, tmp_path, pinned=None) as browser,
        pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"),
    ):
        browser.new_page().goto(https)


def test_the_page_is_live_over_https(context: BrowserContext, complaints: list[str], https: str) -> None:
    sockets: list[str] = []
    context.on("page", lambda page: page.on("websocket", lambda socket: sockets.append(socket.url)))
    page = visit(context, https)
    expect(page).to_have_title("Guestbook")
    expect(page.locator("#log")).to_contain_text(f"Connected to worker {worker(page)}")
    assert sockets == [https.replace("https:", "wss:") + "/ws"]
    assert page.evaluate("isSecureContext")
    protocols = page.evaluate("""
        [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
          .map((entry) => entry.nextHopProtocol)
    """)
    assert len(protocols) >= 3 and set(protocols) == {"h2"}
    assert complaints == []


def test_an_entry_appears_at_once_in_a_tab_of_another_worker(
    context: BrowserContext, complaints: list[str], https: str
) -> None:
    one = visit(context, https)
    other = visit_other_worker(context, https, worker(one))
    for page in (one, other):
        expect(page.locator("#visitors")).to_have_text(re.compile(r"^([2-9]|\d{2,})$"))

    for writer, reader, message in ((one, other, "Ahoy, other tab!"), (other, one, "Ahoy, first tab!")):
        entry = sign(writer, f"Tab of {worker(writer)}", message)
        for page in (reader, writer):
            shown = page.locator(f'#entries [data-id="{entry}"]')
            expect(shown).to_contain_text(message, timeout=AT_ONCE)
            expect(shown.locator(".you")).to_be_visible()

    assert worker(one) != worker(other)
    assert complaints == []


def test_what_the_policy_forbids_is_blocked_and_noticed(
    context: BrowserContext, complaints: list[str], https: str
) -> None:
    page = visit(context, https)
    assert complaints == []
    with page.expect_console_message(lambda seen: seen.text == "blocked: script-src-elem inline"):
        page.evaluate("""
            const script = document.createElement("script");
            script.textContent = "document.title = 'Taken over'";
            document.body.append(script);
        """)
    expect(page).to_have_title("Guestbook")
    assert "error: blocked: script-src-elem inline" in complaints


def test_a_picture_is_kept(context: BrowserContext, complaints: list[str], https: str, tls: ssl.SSLContext) -> None:
    for name, message in GUESTS.items():
        with httpx.Client(base_url=https, verify=tls, trust_env=False) as guest:
            assert guest.post("/api/entries", json={"name": name, "message": message}).status_code == 201
    page = visit(context, https)
    visit_other_worker(context, https, worker(page))
    page.bring_to_front()
    expect(page.locator("#entries li").first).to_contain_text(list(GUESTS)[-1])
    expect(page.locator("#visitors")).to_have_text(re.compile(r"^([2-9]|\d{2,})$"))

    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURE, animations="disabled", caret="hide")
    assert complaints == []
    if kept := os.environ.get("SLIPWAY_SCREENSHOT"):
        # Less than half the size, and no difference to be seen.
        pngquant = program("pngquant", "install it (on Debian: apt-get install pngquant)")
        subprocess.run([pngquant, "--force", "--output", ROOT / kept, PICTURE], check=True)
