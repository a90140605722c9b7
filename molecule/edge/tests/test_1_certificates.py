"""Certificates from a CA, from the first run without DNS to an account that the CA has forgotten."""

import re
import time
from typing import Any

import pytest
from edging import APPS, CA, NAMES, Edge
from hosts import exposure, inside, wait_until

WAITING = "Each site goes on with the certificate that it has"


def test_the_first_run_is_before_dns(edge: Edge) -> None:
    with edge.row("first run, names not in DNS: converges on self-signed, says so; then issued") as row:
        edge.no_names(*NAMES)
        assert {edge.issuer(name) for name in NAMES} == {"self"}
        output = edge.play()
        assert "changed=0" in output
        for name in NAMES:
            assert f"DNS knows no address of {name}" in output
        assert WAITING in output
        # One name is there: it is not held up by the others.
        edge.names("shop.edge.test")
        output = edge.play()
        assert edge.names_served("shop.edge.test") == {"shop.edge.test"}
        assert "DNS knows no address of www.shop.edge.test" in output
        assert edge.issuer("blog.edge.test") == "self"
        row.note = f"{len(NAMES)} names waited"


def test_issues_for_all(edge: Edge) -> None:
    with edge.row("3 apps with 5 names, random nonce failures on: all issued, a second run changes nothing") as row:
        edge.names(*NAMES)
        edge.play()
        for names in APPS.values():
            for name in names:
                assert edge.names_served(name) == set(names)
                assert edge.issuer(name) == "pebble"
        edge.unchanged()
        log = edge.host.check_output("cat /var/lib/slipway-acme/logs/*")
        row.note = f"{log.count('badNonce')} nonces refused"


def test_a_forced_renewal(edge: Edge) -> None:
    with edge.row("a forced renewal: the new serial is served") as row:
        before = edge.served("blog.edge.test").serial_number
        output = edge.play("certificates", "-e", "app=blog", "-e", "renew=true")
        assert edge.served("blog.edge.test").serial_number != before
        assert re.search(r"blog +\d+ days +CN=Pebble Intermediate CA \w+ +blog.edge.test www.blog.edge.test", output)
        row.note = "served at the end of the play"


def test_the_timer_renews(edge: Edge) -> None:
    with edge.row("the timer's service by itself: renews, serves, and leaves nothing pending") as row:
        before = edge.served("api.edge.test").serial_number
        run = edge.host.check_output
        assert "slipway-acme.timer" in run("systemctl list-timers --no-legend slipway-acme.timer")
        run("touch /etc/slipway/acme/api.renew")
        started = time.monotonic()
        run("systemctl start slipway-acme.service")
        wait_until(lambda: edge.served("api.edge.test").serial_number != before, 5, "the new serial is served")
        row.note = f"{time.monotonic() - started:.1f} s with certbot"
        assert not edge.host.file("/etc/slipway/acme/api.renew").exists
        assert not edge.host.file("/etc/nginx/slipway/pending").exists
        assert exposure(edge.host, "slipway-acme.service") <= 2.0


@pytest.mark.only("debian-13")
def test_other_sets_of_names(edge: Edge) -> None:
    with edge.row("a changed set of names and another type of key: issued anew"):
        edge.overrides["blog"] = {"domains": ["blog.edge.test"]}
        edge.play()
        assert edge.names_served("blog.edge.test") == {"blog.edge.test"}
        edge.overrides["blog"] = {"certificate": {"key_type": "rsa"}}
        edge.play()
        assert edge.names_served("blog.edge.test") == set(APPS["blog"])
        assert type(edge.served("blog.edge.test").public_key()).__name__ == "RSAPublicKey"
        edge.unchanged()


@pytest.mark.only("debian-13")
def test_every_direction(edge: Edge, own: dict[str, str]) -> None:
    with edge.row("between a CA's, self-signed and own, in every direction"):
        for certificate, issuer in (
            ({"issuer": "self-signed"}, "self"),
            (own, "CN=A company"),
            ({"issuer": "https://ca.edge.test/dir"}, "pebble"),
            (own, "CN=A company"),
            ({"issuer": "self-signed"}, "self"),
            ({"issuer": "https://ca.edge.test/dir"}, "pebble"),
        ):
            edge.overrides["api"] = {"certificate": certificate}
            edge.play()
            assert edge.issuer("api.edge.test") == issuer
            # A renewal of what is not wished for any more would show.
            edge.host.check_output("systemctl start slipway-acme.service")
            assert edge.issuer("api.edge.test") == issuer
        edge.unchanged()


@pytest.mark.only("debian-13")
def test_a_wildcard_in_dns(edge: Edge, inventory: dict[str, Any]) -> None:
    with edge.row("a wildcard by DNS-01, with BIND: issued and renewed; its credentials are seen nowhere") as row:
        key = inventory["testbed"]["vars"]["edge_tsig"]
        edge.variables["vault_tsig"] = key
        edge.overrides["api"] = {
            "domains": ["wild.test", "*.wild.test"],
            "certificate": {
                "dns": {
                    "plugin": "rfc2136",
                    "propagation_seconds": 1,
                    "credentials": {
                        "server": inside("slipway-edge-dns", "hostname -I").split()[0],
                        "port": "5353",
                        "name": "certbot.",
                        "secret": "{{ vault_tsig }}",
                        "algorithm": "HMAC-SHA512",
                    },
                }
            },
        }
        output = edge.play("site", "-vvv", "--diff")
        assert key not in output
        assert edge.names_served("some.wild.test") == {"wild.test", "*.wild.test"}
        before = edge.served("wild.test").serial_number
        edge.play("certificates", "-e", "app=api", "-e", "renew=true")
        assert edge.served("wild.test").serial_number != before
        edge.unchanged()
        file = edge.host.file("/etc/slipway/acme/api.ini")
        assert (file.user, file.group, file.mode) == ("root", "slipway-acme", 0o640)
        row.note = "issued and renewed"
        del edge.overrides["api"]
        edge.play()


@pytest.mark.only("debian-13")
@pytest.mark.parametrize(
    ("trouble", "begin", "end", "said"),
    [
        ("the CA is down", "systemctl stop nginx", "systemctl start nginx", "cannot be reached"),
        ("the CA answers 429", "touch /etc/edge/too-many", "rm /etc/edge/too-many", "429"),
    ],
)
def test_trouble_at_the_ca(edge: Edge, trouble: str, begin: str, end: str, said: str) -> None:
    with edge.row(f"{trouble}: a clear message, the site keeps its certificate, a rerun heals") as row:
        before = edge.served("blog.edge.test").serial_number
        inside(CA, begin)
        try:
            output = edge.refused("certificates", "-e", "app=blog", "-e", "renew=true")
        finally:
            inside(CA, end)
        reason = re.search(r"- (blog: https://ca.edge.test/dir: it .*)", output)
        assert reason and said in reason[1], output
        row.note = reason[1]
        assert edge.served("blog.edge.test").serial_number == before
        edge.play()
        assert edge.served("blog.edge.test").serial_number != before
        edge.unchanged()


@pytest.mark.only("debian-13")
def test_a_blocked_challenge(edge: Edge) -> None:
    with edge.row("the challenge is blocked: the name and what DNS says of it, without asking the CA") as row:
        before = edge.served("blog.edge.test").serial_number
        edge.names("new.edge.test", at=inside(CA, "hostname -I").split()[0])
        wanted = [*APPS["blog"], "new.edge.test"]
        output = edge.play(blog={"domains": wanted})
        assert "DNS says that new.edge.test is" in output and "it may be another host" in " ".join(output.split())
        assert edge.served("blog.edge.test").serial_number == before
        # Where nobody looked before, the CA says it.
        output = edge.refused(blog={"domains": wanted, "certificate": {"precheck": False}})
        assert "new.edge.test" in output
        assert edge.served("blog.edge.test").serial_number == before
        edge.names("new.edge.test")
        edge.play(blog={"domains": wanted})
        assert edge.names_served("new.edge.test") == set(wanted)
        edge.play()
        row.note = "named, then issued"


@pytest.mark.only("debian-13")
def test_an_account_that_is_gone(edge: Edge) -> None:
    with edge.row("the CA has forgotten the account, and its own root: issued all the same") as row:
        before = edge.served("blog.edge.test").serial_number
        inside(CA, "systemctl restart edge-pebble && sleep 1")
        edge.play("certificates", "-e", "app=blog", "-e", "renew=true")
        assert edge.served("blog.edge.test").serial_number != before
        edge.unchanged()
        row.note = "a new account in the same run"
