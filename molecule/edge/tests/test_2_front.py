"""nginx on a host that serves: renewals under load, what is refused, and a configuration that is cut off."""

import time
from pathlib import Path

import pytest
from edging import CA, Edge
from hosts import inside, wait_until
from killing import KEEP_PAYLOADS, PAYLOADS, Payload, spread
from load import Load
from test_certificates import DAY, NOW, Key, certificate_text, key_text, new_key

CERTBOT = "/var/lib/slipway-acme/certbot"
LEAST = 5000
SERVED_SECONDS = 5.0


@pytest.fixture(scope="module", autouse=True)
def issued(edge: Edge) -> None:
    """Certificates of the CA for every app, as the tests before left them, or as this makes them."""
    edge.names("shop.edge.test", "www.shop.edge.test", "blog.edge.test", "www.blog.edge.test", "api.edge.test")
    edge.play()


def test_a_renewal_under_load(edge: Edge) -> None:
    with edge.row("a renewal under load: the new serial is served, nothing is lost") as row:
        renew = "touch /etc/slipway/acme/guestbook.renew && systemctl start slipway-acme.service"
        # By the CA's root of today, which has another one after each restart; workers of before serve no more.
        workers = "pgrep --full '^nginx: worker process$'"
        before = set(edge.host.check_output(workers).split())
        edge.host.check_output(renew)
        wait_until(lambda: not before & set(edge.host.run(workers).stdout.split()), SERVED_SECONDS, "nginx reloads")
        root = inside(CA, "curl -fsSk https://127.0.0.1:15000/roots/0")
        serial = edge.served("shop.edge.test").serial_number
        address = f"https://127.0.0.1:{edge.site.port(443)}"
        load = Load(address, root, "shop.edge.test", clients=32, sockets=4, pace=0.05)
        with load:
            wait_until(lambda: load.report.requests >= LEAST / 2, 60, "half of the load")
            edge.host.check_output(renew)
            issued = float(
                edge.host.check_output("stat --format=%Y /var/lib/slipway-acme/certbot/live/guestbook/cert.pem")
            )
            wait_until(lambda: edge.served("shop.edge.test").serial_number != serial, SERVED_SECONDS, "it is served")
            took = time.time() - issued
            wait_until(lambda: load.report.requests >= LEAST, 60, "all of the load")
        report = load.take()
        assert not report.lost, report
        idle = report.failed.total()
        row.note = f"{report.requests} requests, 0 failed, {idle} closed while idle; served {took:.1f} s after"
        assert took < SERVED_SECONDS


KEY, OTHER = new_key(), new_key()
NAME = ["api.edge.test"]
PAST = {"begin": NOW - 90 * DAY, "end": NOW - DAY}


@pytest.mark.only("debian-13")
@pytest.mark.parametrize(
    ("what", "fullchain", "privkey", "said"),
    [
        ("its key does not match", certificate_text(KEY, NAME), OTHER, "it must be the key of the first certificate"),
        ("it has expired", certificate_text(KEY, NAME, **PAST), KEY, "it expired on"),
        ("its chain is incomplete", certificate_text(KEY, NAME, signer=("A CA", OTHER)), KEY, "its chain ends with"),
        ("it is for other names", certificate_text(KEY, ["edge.test"]), KEY, "and lacks api.edge.test"),
    ],
)
def test_an_own_certificate_that_does_not_do(
    edge: Edge, tmp_path: Path, what: str, fullchain: str, privkey: Key, said: str
) -> None:
    with edge.row(f"own certificate, {what}: refused before anything changes") as row:
        before = edge.served("api.edge.test").serial_number
        own = {"fullchain": tmp_path / "own.pem", "privkey": tmp_path / "own.key"}
        own["fullchain"].write_text(fullchain)
        own["privkey"].write_text(key_text(privkey))
        output = edge.refused(api={"certificate": {name: str(path) for name, path in own.items()}})
        assert said in " ".join(output.split()), output
        assert "nothing was changed" in output and "changed=0" in output
        assert edge.served("api.edge.test").serial_number == before
        row.note = said


@pytest.mark.only("debian-13")
def test_directives_that_nginx_does_not_take(edge: Edge) -> None:
    with edge.row("a broken snippet of the user's: refused, what runs is untouched on disk and in memory") as row:
        run = edge.host.check_output
        look = "readlink /etc/nginx/slipway/current; systemctl show --property=MainPID,ExecReload nginx; pgrep nginx"
        before = run(look), run("find -L /etc/nginx -type f -exec sha256sum {} + | sort")
        output = edge.refused(api={"nginx": {"server": "no_such_thing on;"}})
        assert 'unknown directive "no_such_thing"' in output
        assert (run(look), run("find -L /etc/nginx -type f -exec sha256sum {} + | sort")) == before
        run("nginx -t -q")
        edge.unchanged()
        row.note = "nginx names the directive, file and line"


@pytest.mark.only("debian-13")
def test_a_configuration_that_is_cut_off(edge: Edge, soak: bool) -> None:
    with edge.row("SIGKILL to config_set at a system call: plain nginx -t passes, the next run converges") as row:
        run = edge.host.check_output
        run("command -v strace >/dev/null || { apt-get -qq update && apt-get -qq install strace >/dev/null; }")
        payloads = []
        for size in ("11m", "12m"):
            edge.play(environment=KEEP_PAYLOADS, api={"max_body_size": size})
            payloads.append(Payload(edge.host, "config_set", '"store": "/etc/nginx/slipway"', first=""))
        first, second = payloads
        calls = first.calls()
        points = spread(calls, None if soak else 5)
        for number, point in enumerate(points):
            second.run()
            killed = first.cut_off(point)
            run("nginx -t -q")
            assert first.run()["changed"] or not killed
            assert not first.run()["changed_files"]
            run("nginx -t -q")
            row.note = f"{number + 1} of {len(points)}, {len(calls)} calls in all"
        run(f"rm -rf {PAYLOADS}/* /root/config_set-*.py /root/calls")
        edge.play()
        edge.unchanged()
