"""The demo over HTTPS, from outside."""

import asyncio
import ipaddress
import json
import re
import socket
import ssl
import subprocess
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hosts import ASK_INSIDE
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

STRANGER = "stranger.example"
FORGED = "203.0.113.66"
SECURITY_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "strict-origin-when-cross-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def assets(client: httpx.Client) -> list[str]:
    """The addresses of all that the page loads."""
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
    assert len(found) == 3, found
    return found


def handshake(https: str, tls: ssl.SSLContext, name: str) -> str | None:
    """Connect for a name, and return the protocol that was agreed on."""
    address = urlsplit(https)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((address.hostname, address.port), 20) as plain,
        tls.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.selected_alpn_protocol()


def follow(https: str, tls: ssl.SSLContext, path: str = "/ws", origin: str | None = None) -> connect:
    """Open a WebSocket.

    Not with the client that has threads: one of them reads while another writes, which OpenSSL does not allow for one
    connection, and about one request in 400 was never sent.
    """
    address = https.replace("https:", "wss:") + path
    return connect(address, ssl=tls, origin=None if origin is None else Origin(origin), proxy=None, open_timeout=20)


async def hear(connection: ClientConnection) -> dict[str, Any]:
    """Return the next message."""
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await connection.recv())
        return message


async def hear_of(connection: ClientConnection, entry: int) -> dict[str, Any]:
    """Return the entry with this id as soon as the WebSocket brings it."""
    while True:
        for heard in (await hear(connection)).get("entries", []):
            if heard["id"] == entry:
                return dict(heard)


@pytest.mark.parametrize("path", ["/", "/health", "/api/entries"])
def test_it_answers(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_readiness_names_what_was_checked_but_only_on_the_host(client: httpx.Client, container: str) -> None:
    command = ["docker", "exec", container, "python3", "-c", ASK_INSIDE, "localhost", "/ready"]
    status, _, body = subprocess.check_output(command, text=True, timeout=30).partition(" ")
    ready = json.loads(body)
    assert status == "200" and ready["status"] == "ready"
    assert ready["checks"]["database"]["ok"] is True
    for path in ("/ready", "/metrics"):
        assert client.get(path).status_code == 404


def test_the_certificate_is_what_lets_us_in(https: str) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(https, trust_env=False)


def test_http2_is_agreed_on(https: str, tls: ssl.SSLContext) -> None:
    assert handshake(https, tls, urlsplit(https).hostname or "") == "h2"


def test_http_redirects_to_the_same_place_over_https(client: httpx.Client, http: str, https: str) -> None:
    answer = client.get(f"{http}/some/page?a=1&b=%2F", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, f"{https}/some/page?a=1&b=%2F")
    assert client.get(f"{http}/health", follow_redirects=True).status_code == 200


def test_unknown_names_get_no_answer(client: httpx.Client, http: str, https: str, tls: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        handshake(https, tls, STRANGER)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(http, headers={"Host": STRANGER})
    assert client.get("/", headers={"Host": STRANGER}).status_code == 421


@pytest.mark.parametrize("place", ["page", "asset", "no such page", "no such file"])
def test_every_answer_has_the_security_headers(client: httpx.Client, place: str) -> None:
    path, status = {
        "page": ("/", 200),
        "asset": (assets(client)[0], 200),
        "no such page": ("/no-such-page", 404),
        "no such file": ("/static/no-such-file.js", 404),
    }[place]
    answer = client.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get_list(name) for name in SECURITY_HEADERS} == {
        name: [value] for name, value in SECURITY_HEADERS.items()
    }
    (policy,) = answer.headers.get_list("content-security-policy")
    assert policy.startswith("default-src 'none';") and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["permissions-policy"]
    assert answer.headers["server"] == "nginx"
    assert "x-slipway-release" not in answer.headers
    # The demo's inventory takes it away: it would hold for every port of localhost.
    assert "strict-transport-security" not in answer.headers


def test_the_redirect_says_no_more_than_it_must(client: httpx.Client, http: str) -> None:
    answer = client.get(http, follow_redirects=False)
    # Over plain HTTP the header is void, and whoever sends it has mistaken the server block.
    assert not {"strict-transport-security", "set-cookie"} & set(answer.headers)
    assert answer.headers["server"] == "nginx"


def test_nginx_serves_the_assets_and_lets_them_be_kept(client: httpx.Client) -> None:
    assert len(client.get("/health").headers.get_list("x-request-id")) == 1
    for path in assets(client):
        assert re.search(r"\.[0-9a-f]{12}\.\w+$", path), path
        answer = client.get(path)
        assert answer.status_code == 200
        # The app's is a hash, nginx's the time and the size.
        etag = answer.headers["etag"]
        assert re.fullmatch('(W/)?"[0-9a-f]{8}-[0-9a-f]+"', etag), f"the app, and not nginx, served {path}"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = client.get(path, headers={"If-None-Match": etag})
        assert again.status_code == 304
    assert client.get("/static/app.js").headers["cache-control"] == "no-cache"
    assert "no-cache" in client.get("/").headers["cache-control"]


@pytest.mark.parametrize("path", ["/static/%2e%2e/alembic.ini", "/static/..%2falembic.ini", "/static/dist/"])
def test_nothing_beside_the_assets_is_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code in (400, 403, 404)


def test_the_app_sees_the_client_and_not_what_it_claims(client: httpx.Client, https: str) -> None:
    honest = client.get("/api/client").json()
    forged = client.get(
        "/api/client",
        headers={
            "Forwarded": f"for={FORGED};proto=http;host={STRANGER}",
            "X-Forwarded-For": FORGED,
            "X-Forwarded-Host": STRANGER,
            "X-Forwarded-Proto": "http",
            "X-Real-IP": FORGED,
        },
    ).json()
    assert forged == honest
    assert (honest["scheme"], honest["host"]) == ("https", urlsplit(https).netloc)
    assert ipaddress.ip_address(honest["address"]) != ipaddress.ip_address(FORGED)


def test_an_entry_is_stored(client: httpx.Client) -> None:
    written = client.post("/api/entries", json={"name": "Grace", "message": "It compiles, it ships, it floats."})
    assert written.status_code == 201, written.text
    assert written.json() in client.get("/api/entries").json()


@pytest.mark.anyio
async def test_a_socket_says_who_serves(client: httpx.Client, https: str, tls: ssl.SSLContext) -> None:
    about = (await asyncio.to_thread(client.get, "/api/about")).json()
    async with follow(https, tls, origin=https) as connection:
        message = await hear(connection)
    assert (message["about"]["release"], message["about"]["slot"]) == (about["release"], about["slot"])
    assert message["visitors"] >= 1


@pytest.mark.anyio
async def test_an_entry_reaches_the_sockets_of_every_worker(
    client: httpx.Client, https: str, tls: ssl.SSLContext
) -> None:
    async with follow(https, tls) as one:
        pid = (await hear(one))["about"]["pid"]
        # The kernel deals out connections as it likes, for a while most of them to one worker.
        for _ in range(60):
            async with follow(https, tls) as other:
                if (await hear(other))["about"]["pid"] == pid:
                    continue
                words = {"name": "Linus", "message": "Hello to every worker."}
                entry = (await asyncio.to_thread(client.post, "/api/entries", json=words)).json()
                assert await hear_of(one, entry["id"]) == await hear_of(other, entry["id"]) == entry
                return
    pytest.fail(f"All of 60 connections went to worker {pid}.")


@pytest.mark.anyio
async def test_pages_of_other_sites_get_no_socket(https: str, tls: ssl.SSLContext) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        await follow(https, tls, origin=f"https://{STRANGER}")


@pytest.mark.anyio
async def test_there_are_no_sockets_elsewhere(https: str, tls: ssl.SSLContext) -> None:
    with pytest.raises(InvalidStatus, match="200"):
        await follow(https, tls, path="/api/about")
