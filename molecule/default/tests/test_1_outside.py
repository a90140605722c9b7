"""The site as the world meets it."""

import asyncio
import json
import re
import socket
import ssl
from typing import Any

import httpx
import pytest
import websockets
from hosts import DOMAIN, Site

HEADERS = (
    "strict-transport-security",
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
)


@pytest.mark.parametrize("path", ["/", "/health", "/api/entries", "/api/about"])
def test_answers(site: Site, path: str) -> None:
    assert site.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/ready", "/metrics", "//metrics", "/%6detrics/", "/.slipway/ready"])
def test_what_is_private_is_not_there(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 404
    assert {name: len(answer.headers.get_list(name)) for name in HEADERS} == dict.fromkeys(HEADERS, 1)


def test_http_redirects_to_https_and_keeps_the_path(site: Site) -> None:
    answer = httpx.get(
        f"http://127.0.0.1:{site.port(80)}/a/b?c=d", headers={"Host": DOMAIN}, trust_env=False, timeout=20
    )
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{DOMAIN}/a/b?c=d"


def test_http_2(site: Site) -> None:
    context = site.tls
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", site.port(443)), 20) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.version() == "TLSv1.3"


def test_old_tls_is_refused(site: Site) -> None:
    context = site.tls
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", site.port(443)), 20) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname=DOMAIN)


def test_unknown_names_get_no_answer(site: Site) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", site.port(443)), 20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="stranger.example")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{site.port(80)}/", headers={"Host": "stranger.example"}, trust_env=False)
    assert site.get("/", headers={"Host": "stranger.example"}).status_code == 421


def asset(site: Site) -> str:
    found = re.search(r"/static/dist/app\.[0-9a-f]{12}\.js", site.get("/").text)
    assert found
    return found[0]


@pytest.mark.parametrize("path", ["/", "/no-such-page", "/api/about", "/static/no-such-file", "ASSET"])
def test_every_answer_has_the_security_headers(site: Site, path: str) -> None:
    answer = site.get(asset(site) if path == "ASSET" else path)
    for name in HEADERS:
        assert len(answer.headers.get_list(name)) == 1, f"{name} of {path}"
    assert "slipway" not in str(answer.headers).lower()
    assert answer.headers["server"] == "nginx"


def test_nginx_serves_hashed_assets_for_ever_and_nothing_beside_them(site: Site) -> None:
    answer = site.get(asset(site))
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    for path in ("/static/../guestbook/settings.py", "/static/%2e%2e/requirements.txt", "/static/.env"):
        assert site.get(path).status_code in (400, 403, 404), path


def test_the_app_sees_the_client_and_not_what_it_claims(site: Site) -> None:
    honest = site.get("/api/client").json()
    forged = site.get(
        "/api/client",
        headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http", "Forwarded": "for=6.6.6.6"},
    ).json()
    assert honest == forged
    assert honest["scheme"] == "https"
    assert honest["host"] == DOMAIN
    assert honest["address"] not in ("", "6.6.6.6", None)


def test_too_large_a_body_is_refused(site: Site) -> None:
    assert site.request("POST", "/api/echo", content=b"x" * 11_000_000).status_code == 413


def test_websocket_says_who_serves(site: Site) -> None:
    async def first_words() -> dict[str, Any]:
        async with websockets.connect(
            f"wss://{DOMAIN}:{site.port(443)}/ws",
            host="127.0.0.1",
            ssl=site.tls,
            additional_headers={},
            proxy=None,
        ) as connection:
            words: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), 20))
            return words

    words = asyncio.run(first_words())
    about = site.get("/api/about").json()
    assert about["release"] in json.dumps(words)


def test_upgrades_elsewhere_are_no_websockets(site: Site) -> None:
    answer = site.get("/api/about", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert answer.status_code == 200


def test_an_entry_is_stored(site: Site) -> None:
    written = site.request("POST", "/api/entries", json={"name": "molecule", "message": "was here"})
    assert written.status_code == 201, written.text
    assert written.json()["id"] in [entry["id"] for entry in site.get("/api/entries").json()]
