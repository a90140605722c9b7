"""`make demo-deploy`, as somebody sees it who has the page open."""

import re
import subprocess

import httpx
from browsing import ROOT, visit
from playwright.sync_api import BrowserContext, expect

DEPLOY_SECONDS = 180
WORDS = "Half a sentence, and then"


def test_an_open_page_turns_over_without_a_reload(
    context: BrowserContext, complaints: list[str], https: str, client: httpx.Client
) -> None:
    before = client.get("/api/about").json()
    page = visit(context, https)
    expect(page.locator("#version")).to_have_text(before["version"])
    accent = "getComputedStyle(document.documentElement).getPropertyValue('--accent')"
    colour = page.evaluate(accent)
    page.get_by_label("Name").fill("Grace")
    page.get_by_label("Message").press_sequentially(WORDS)
    page.evaluate("""
        window.said = [];
        new MutationObserver(() => said.push(document.getElementById("status").textContent))
          .observe(document.getElementById("status"), { childList: true });
    """)

    with subprocess.Popen(["make", "demo-deploy"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as deploy:
        expect(page.locator("#version")).not_to_have_text(before["version"], timeout=DEPLOY_SECONDS * 1000)
        # The release before keeps its WebSockets for longer than the load goes on: the page moved by itself.
        assert deploy.poll() is None
        output, _ = deploy.communicate(timeout=DEPLOY_SECONDS)

    assert deploy.returncode == 0, output
    assert re.search(r"^ *\d+ +[1-9]\d* +0 +[1-9]\d* +[1-9]\d* +done$", output, re.MULTILINE), output
    after = client.get("/api/about").json()
    assert after["colour"] != before["colour"] and after["release"] != before["release"]
    for key in ("version", "release", "slot"):
        expect(page.locator(f"#{key}")).to_have_text(after[key])
    expect(page.locator("meta[name=theme-color]")).to_have_attribute("content", after["colour"])
    assert page.evaluate(accent) != colour
    expect(page.locator("#log")).to_contain_text(re.compile(rf"Release {after['release']} took over in \d+ ms"))
    # Gone if the page had been loaded anew; and it never said that it was reconnecting.
    assert set(page.evaluate("window.said")) == {"Live"}
    expect(page.get_by_label("Name")).to_have_value("Grace")
    expect(page.get_by_label("Message")).to_have_value(WORDS)
    assert page.evaluate("document.activeElement.id") == "message"
    assert complaints == []
