"""The page and its assets."""

import re
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from guestbook.assets import asset_url, build
from tests.conftest import ROOT


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "static", tmp_path / "static", ignore=lambda *_: {"dist"}))


def test_the_page_needs_nothing_that_a_strict_policy_refuses(client: TestClient) -> None:
    page = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "@import" not in (ROOT / "static" / "style.css").read_text()


def test_the_page_greets(client: TestClient) -> None:
    assert client.get("/api/about").json()["greeting"] in client.get("/").text


def test_every_asset_of_the_page_is_there(client: TestClient) -> None:
    page = client.get("/")
    assert "no-cache" in page.headers["cache-control"]
    assets = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert client.get(asset).status_code == 200


def test_names_hold_the_content_and_stay_when_it_does(static: Path) -> None:
    assert asset_url(static)("app.js") == "/static/app.js"
    first = build(static)
    assert set(first) == {"app.js", "favicon.svg", "style.css"}
    assert asset_url(static)("app.js") == f"/static/{first['app.js']}"
    assert (static / first["app.js"]).read_bytes() == (static / "app.js").read_bytes()
    assert build(static) == first

    (static / "app.js").write_text("new")
    second = build(static)
    assert second["app.js"] != first["app.js"]
    assert second["style.css"] == first["style.css"]


def test_the_cookie_is_for_https_where_the_visitor_came_by_https(client: TestClient) -> None:
    assert "Secure" not in client.get("http://testserver/").headers["set-cookie"]
    client.cookies.clear()
    assert "Secure" in client.get("https://testserver/").headers["set-cookie"]
