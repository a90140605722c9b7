"""What is asked of a CA and what is not; the CA itself, and certbot, are real in the scenario edge."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_certificates import DAY, NOW, certificate_text, key_text, new_key

from ansible_collections.slipway.asgi.plugins.module_utils import acme
from ansible_collections.slipway.asgi.plugins.module_utils.acme import (
    Certbot,
    Desk,
    Lineage,
    Outcome,
    Wish,
    adopt,
    names_to_ask,
    reason,
)
from ansible_collections.slipway.asgi.plugins.module_utils.realms import Front, Pair, Realm, Refused
from ansible_collections.slipway.asgi.plugins.modules import certificates

SERVER = "https://ca.example.com/dir"
SHOP = Wish("shop", ("shop.example.com", "www.example.com"), SERVER)


def held(*names: str, **changed: Any) -> Lineage:
    values = {"server": SERVER, "key_type": "ecdsa", "profile": "", "authenticator": "webroot", "is_good": True}
    return Lineage(**{**values, **changed}, names=frozenset(names))


@pytest.mark.parametrize(
    ("lineage", "reachable", "asked"),
    [
        pytest.param(None, SHOP.domains, list(SHOP.domains), id="the first time"),
        pytest.param(None, ["www.example.com"], ["www.example.com"], id="what can be reached is not held up"),
        pytest.param(None, [], [], id="nothing can be reached"),
        pytest.param(held(*SHOP.domains), SHOP.domains, [], id="it is there"),
        pytest.param(held("www.example.com"), SHOP.domains, list(SHOP.domains), id="one more can be reached now"),
        pytest.param(held("www.example.com"), ["www.example.com"], [], id="no more than before"),
        pytest.param(held("www.example.com"), ["shop.example.com"], [], id="what is served is not given up"),
        pytest.param(held(*SHOP.domains, "old.example.com"), SHOP.domains, list(SHOP.domains), id="one less is wanted"),
        pytest.param(held(*SHOP.domains, server="https://x/"), SHOP.domains, list(SHOP.domains), id="another CA"),
        pytest.param(held(*SHOP.domains, key_type="rsa"), SHOP.domains, list(SHOP.domains), id="another key"),
        pytest.param(held(*SHOP.domains, profile="short"), SHOP.domains, list(SHOP.domains), id="another profile"),
        pytest.param(held(*SHOP.domains, authenticator="dns-x"), SHOP.domains, list(SHOP.domains), id="another way"),
        pytest.param(held(*SHOP.domains, is_good=False), ["www.example.com"], ["www.example.com"], id="expired"),
    ],
)
def test_what_is_asked_for(lineage: Lineage | None, reachable: list[str], asked: list[str]) -> None:
    assert names_to_ask(SHOP, lineage, reachable) == asked


def test_a_wish_is_read_as_it_was_written() -> None:
    wish = Wish("shop", ("a.example.com",), SERVER, dns="rfc2136", eab_kid="k", eab_hmac_key="secret")
    assert Wish.of(wish.text()) == wish
    assert "secret" not in repr(wish)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "Saving debug log to /x\nRequesting a certificate for a\n\nCertbot failed to authenticate some domains\n"
            "The Certificate Authority reported these problems:\n  Domain: a.example.com\n  Type:   dns\n"
            "  Detail: no such host\n\nHint: The CA failed\n\nSome challenges have failed.\nAsk for help or search",
            f"{SERVER}: Domain: a.example.com Type:   dns Detail: no such host",
        ),
        (
            "Failed to renew certificate shop with error: HTTPSConnectionPool(host='ca', port=443): Max retries "
            'exceeded (Caused by NewConnectionError("...: [Errno 111] Connection refused"))\nAll renewals failed. x\n'
            "  /x/fullchain.pem (failure)\n1 renew failure(s), 0 parse failure(s)",
            f"{SERVER}: it cannot be reached: Connection refused",
        ),
        (
            "An unexpected error occurred:\nacme.errors.ClientError: <Response [429]>",
            f"{SERVER}: it answers with status 429, too many requests: leave it alone for a while",
        ),
        ("\n", f"{SERVER}: certbot failed and said nothing"),
    ],
)
def test_what_certbot_says_is_said_shortly(output: str, said: str) -> None:
    assert reason(output, SERVER) == said


# --- what the CA will see


@contextlib.contextmanager
def web(answer: Any) -> Iterator[int]:
    """A web server on 127.0.0.1; what it answers is up to the test."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path, self.headers["Host"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def unreachable(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> dict[str, str]:
    monkeypatch.setattr(acme, "PORTS", (port, port))

    def ask(domain: str) -> list[str]:
        if not addresses:
            raise Refused(f"DNS knows no address of {domain}")
        return list(addresses)

    return Certbot(Desk(tmp_path), addresses=ask)._unreachable(Wish("shop", ("shop.example.com",), SERVER))


def test_a_challenge_that_is_served_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    webroot = Desk(tmp_path).webroot

    def answer(path: str, host: str) -> Any:
        assert host == "shop.example.com"
        if path.startswith("/.well-known"):
            return 302, {"Location": f"/moved{path}"}, b""
        return 200, {}, (webroot / path.removeprefix("/moved/")).read_bytes()

    with web(answer) as port:
        assert unreachable(tmp_path, port, monkeypatch, "127.0.0.1") == {}
        # IPv6 is often announced and not there.
        assert unreachable(tmp_path, port, monkeypatch, "::1", "127.0.0.1") == {}
    assert not list((webroot / acme.CHALLENGES).iterdir())


def test_a_challenge_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web(lambda _path, _host: (404, {}, b"what?")) as port:
        said = unreachable(tmp_path, port, monkeypatch, "127.0.0.1")["shop.example.com"]
    assert said.startswith("DNS says that shop.example.com is 127.0.0.1, which answers http://shop.example.com/")
    assert "with status 404 and not with this host's file" in said
    said = unreachable(tmp_path, port, monkeypatch, "127.0.0.1")["shop.example.com"]
    assert f"127.0.0.1 does not answer at port {port}" in said and "refused" in said
    assert unreachable(tmp_path, port, monkeypatch)["shop.example.com"] == "DNS knows no address of shop.example.com"


def test_redirects_do_not_go_on_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web(lambda path, _host: (301, {"Location": path}, b"")) as port:
        assert "with status 310" in unreachable(tmp_path, port, monkeypatch, "127.0.0.1")["shop.example.com"]


# --- what certbot holds, and the way into the realms


def issue(desk: Desk, name: str, *names: str, privkey: str = "", **changed: Any) -> Pair:
    """Let a lineage look as certbot leaves one."""
    key = new_key()
    pair = Pair(certificate_text(key, list(names), **changed), privkey or key_text(key))
    live = desk.live(name)
    live.mkdir(parents=True, exist_ok=True)
    (live / "fullchain.pem").write_text(pair.fullchain)
    (live / "privkey.pem").write_text(pair.privkey)
    renewal = desk.certbot / "renewal"
    renewal.mkdir(exist_ok=True)
    (renewal / f"{name}.conf").write_text(
        f"version = 5.8.0\narchive_dir = {desk.certbot}/archive/{name}\n[renewalparams]\naccount = 0\n"
        f"authenticator = webroot\nserver = {SERVER}\nkey_type = ecdsa\n[[webroot_map]]\nshop.example.com = /x\n"
    )
    return pair


def wish(desk: Desk, value: Wish) -> None:
    desk.wishes.mkdir(parents=True, exist_ok=True)
    desk.wish(value.name).write_text(value.text())


def test_a_lineage_is_read(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.lineage("shop") is None
    issue(desk, "shop", *SHOP.domains)
    assert desk.lineage("shop") == held(*SHOP.domains)
    issue(desk, "shop", *SHOP.domains, end=NOW - DAY / 2)
    assert desk.lineage("shop") == held(*SHOP.domains, is_good=False)
    issue(desk, "shop", *SHOP.domains, privkey=key_text(new_key()))
    assert desk.lineage("shop") is None
    assert desk.held() == {"shop"}
    desk.discard("shop")
    assert desk.held() == set()


def test_what_was_issued_is_served_and_nothing_else_of_its_file(tmp_path: Path) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    pair = issue(desk, "shop", *SHOP.domains)
    (desk.live("shop") / "fullchain.pem").write_text(f"{pair.fullchain}a secret of root's\n")
    pending = tmp_path / "pending"
    assert adopt(desk, realms, Front(pending, "true")) == []
    assert Realm(realms, "shop").pair() == pair
    assert not pending.exists()


def test_what_cannot_be_taken_up_is_said_and_tried_again(tmp_path: Path) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    issue(desk, "shop", *SHOP.domains)
    pending = tmp_path / "pending"
    assert "failed with status 1" in adopt(desk, realms, Front(pending, "false"))[0]
    assert pending.exists()
    assert adopt(desk, realms, Front(pending, "true")) == []
    assert not pending.exists()


def test_what_a_playbook_has_left_to_do_is_not_done_by_a_renewal(tmp_path: Path) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    issue(desk, "shop", *SHOP.domains)
    pending = tmp_path / "pending"
    pending.write_text("/etc/systemd/system/nginx.service.d/50-slipway-sandbox.conf\n")
    assert adopt(desk, realms, Front(pending, "true")) == []
    assert pending.read_text()


def test_what_nobody_wishes_for_any_more_is_not_served(tmp_path: Path) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    issue(desk, "shop", *SHOP.domains)
    desk.forget("shop")
    assert adopt(desk, realms, Front()) == []
    assert Realm(realms, "shop").pair() is None


def test_a_renewal_is_asked_for_until_there_is_one(tmp_path: Path) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    issue(desk, "shop", *SHOP.domains)
    desk.renewal("shop").touch()
    os.utime(desk.live("shop") / "fullchain.pem", (time.time() - 10,) * 2)
    adopt(desk, realms, Front())
    assert desk.is_forced("shop")
    issue(desk, "shop", *SHOP.domains)
    os.utime(desk.live("shop") / "fullchain.pem", (time.time() + 10,) * 2)
    adopt(desk, realms, Front())
    assert not desk.renewal("shop").exists()


CERTBOT = """\
import json, pathlib, sys
log = pathlib.Path({log!r})
calls = json.loads(log.read_text()) if log.exists() else []
log.write_text(json.dumps([*calls, sys.argv[1:]]))
said = {said!r}[len(calls):len(calls) + 1]
print(*said)
sys.exit(1 if said else 0)
"""


@pytest.fixture
def calls(tmp_path: Path) -> Any:
    """A program in certbot's place that fails as often as it is told, and what it was called with."""

    def certbot(*said: str) -> tuple[Certbot, Any]:
        desk = Desk(tmp_path)
        desk.state.mkdir(parents=True, exist_ok=True)
        log = tmp_path / "calls"
        script = tmp_path / "certbot.py"
        script.write_text(CERTBOT.format(log=str(log), said=said))

        def called() -> list[list[str]]:
            return json.loads(log.read_text()) if log.exists() else []

        return Certbot(desk, (sys.executable, str(script)), lambda _domain: []), called

    return certbot


def test_a_nonce_that_is_refused_is_no_failure(calls: Any) -> None:
    certbot, called = calls("JWS has an invalid anti-replay nonce: x", "JWS has an invalid anti-replay nonce: y")
    assert certbot.issue(SHOP, SHOP.domains) == ""
    assert len(called()) == 3


def test_an_account_that_the_ca_has_forgotten_is_put_aside(calls: Any) -> None:
    certbot, called = calls("Account https://ca.example.com/my-account/1 not found.")
    account = certbot.desk.certbot / "accounts/ca.example.com/dir/0123"
    account.mkdir(parents=True)
    assert certbot.issue(SHOP, SHOP.domains) == ""
    assert len(called()) == 2
    assert not account.exists() and len(list(certbot.desk.certbot.glob("accounts-gone/*/0123"))) == 1


def test_the_key_of_an_account_is_in_no_command_line(calls: Any) -> None:
    certbot, called = calls()
    certbot.issue(Wish("shop", ("a.example.com",), SERVER, eab_kid="kid", eab_hmac_key="canary"), ["a.example.com"])
    assert "canary" not in str(called())
    assert not (certbot.desk.state / "certbot.ini").exists()


def test_each_wish_is_seen_to_and_reported(calls: Any) -> None:
    certbot, called = calls("An unexpected error occurred:\nno")
    desk = certbot.desk
    wish(desk, Wish("blog", ("blog.example.com",), SERVER, precheck=False))
    wish(desk, SHOP)
    issue(desk, "shop", *SHOP.domains)
    issue(desk, "gone", "gone.example.com")
    assert not certbot.run()
    outcomes = desk.outcomes()
    assert outcomes == {"blog": Outcome("failed", (f"{SERVER}: no",)), "shop": Outcome("good")}
    assert [call[0] for call in called()] == ["certonly", "renew"]
    assert desk.held() == {"shop"}


@pytest.mark.parametrize("delete", [False, True])
def test_a_removed_app_is_renewed_no_more(tmp_path: Path, delete: bool) -> None:
    desk, realms = Desk(tmp_path), tmp_path / "realms"
    wish(desk, SHOP)
    pair = issue(desk, "shop", *SHOP.domains)
    adopt(desk, realms, Front())
    options = {"apps": [], "privkeys": {}, "root": str(realms), "remove": ["shop"], "delete": delete}
    assert certificates.converge(options, False, desk)["changed_apps"] == ["shop"]
    assert desk.held() == set() and not desk.wishes_for("shop")
    assert Realm(realms, "shop").pair() == (None if delete else pair)
    assert not certificates.converge(options, False, desk)["changed"]
