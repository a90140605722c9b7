"""The demo in a real browser.

A picture is kept in .cache/screenshots; SLIPWAY_SCREENSHOT=docs/screenshot.png makes the README's anew.
"""

import os
import re
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from browsing import ROOT, chromium, program, visit
from playwright.sync_api import BrowserContext, Error, Page, Playwright, expect

PICTURE = ROOT / ".cache" / "screenshots" / "guestbook.png"
AT_ONCE = 2000
GUESTS = {
    "Margaret": "Both slots in sight, and the sea is calm.",
    "Tim": "HTTPS from the first minute. The web would approve.",
    "Radia": "Signed on one worker, read on the other. Not a packet lost.",
    "Edsger": "What cannot be changed cannot be changed by mistake.",
    "Ada": "Ahoy! First aboard the new release, and nobody had to reload.",
}


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
