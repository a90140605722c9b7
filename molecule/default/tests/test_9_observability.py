"""What can be seen of a host: its requests, its apps' records, and what Prometheus is told."""

import json
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from deploying import Deploys
from hosts import APP, DOMAIN, ROOT, Site, exposure, journal, look, wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

# As the scenario's inventory says.
PROMETHEUS = "127.0.0.9"
ENDPOINTS = ("node", "nginx", f"apps/{APP}")
# Asks for metrics from an address, by a name in TLS and one in HTTP, and prints status and body.
ASK = """
import socket, ssl, sys
source, name, host, path = sys.argv[1:]
plain = socket.create_connection(("127.0.0.1", 443), 20, (source, 0))
connection = ssl._create_unverified_context().wrap_socket(plain, server_hostname=name)
connection.sendall(f"GET /.slipway/metrics/{path} HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n".encode())
head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).decode().partition("\\r\\n\\r\\n")
print(head.split()[1], body)
"""


def requests(host: Any, text: str) -> list[dict[str, Any]]:
    """The requests in the journal that have a text in them."""
    lines = journal(host, "--namespace=requests --identifier=nginx --quiet --since=-10min")
    return [json.loads(line) for line in lines if text in line]


def records(host: Any, unit: str, since: float) -> list[dict[str, Any]]:
    """What the processes of a unit have said since a time of the epoch, all of which is JSON."""
    return [json.loads(line) for line in journal(host, f"--quiet --since=@{since:.6f} _SYSTEMD_UNIT={unit}")]


def asked(host: Any, path: str, source: str = PROMETHEUS, name: str = DOMAIN) -> tuple[int, str]:
    """Status and body of what the host says when it is asked for metrics."""
    status, _, body = host.check_output("python3 -c %s %s %s %s %s", ASK, source, DOMAIN, name, path).partition(" ")
    return int(status), body


def scraped(host: Any, path: str = f"apps/{APP}") -> str:
    """What Prometheus is told."""
    status, body = asked(host, path)
    assert status == 200, body
    return body


def total(text: str, name: str, labels: str = "") -> float:
    """The sum of all series of a metric that have these labels."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for having, value in found if labels in having)


@contextmanager
def websocket(site: Site, origin: Any = None) -> Iterator[int]:
    """Hold a WebSocket open; the pid of the worker that holds it."""
    plain = socket.create_connection(("127.0.0.1", site.port(443)), 20)
    how: dict[str, Any] = {"sock": plain, "ssl": site.tls, "server_hostname": DOMAIN, "proxy": None}
    with connect(f"wss://{DOMAIN}/ws", origin=origin, **how) as connection:
        yield json.loads(connection.recv(20))["about"]["pid"]


def test_a_request_is_a_line_with_the_id_that_its_client_was_told(host: Any, site: Site, live: dict[str, Any]) -> None:
    mark = uuid.uuid4().hex
    answer = site.get(f"/api/about?{mark}")
    wait_until(lambda: len(requests(host, mark)) == 1, 20, "the line")
    (line,) = requests(host, mark)
    assert answer.headers.get_list("x-request-id") == [line["request_id"]]
    about = answer.json()
    assert (line["app"], line["release"], line["slot"]) == (APP, about["release"], live["slot"])
    assert (line["method"], line["status"], line["uri"]) == ("GET", 200, f"/api/about?{mark}")
    assert line["host"] == DOMAIN and line["bytes"] == len(answer.content) and line["request_time"] >= 0


def test_no_request_is_left_out(host: Any, site: Site) -> None:
    mark = uuid.uuid4().hex
    for _ in range(100):
        site.get(f"/health?{mark}")
    wait_until(lambda: len(requests(host, mark)) >= 100, 20, "100 lines")
    assert len({line["request_id"] for line in requests(host, mark)}) == 100


def test_the_journal_of_requests_is_nginxs_alone_and_within_bounds(host: Any) -> None:
    place = host.file("/run/systemd/journal.requests/dev-log")
    assert (place.user, place.group, place.mode) == ("root", "www-data", 0o660)
    say = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect('{place.path}')"
    assert host.run("python3 -c %s", say).rc == 0
    refused = host.run("runuser -u %s -- python3 -c %s", f"slipway-{APP}", say)
    assert refused.rc != 0 and "PermissionError" in refused.stderr
    machine = host.check_output("cat /etc/machine-id")
    assert host.file(f"/var/log/journal/{machine}.requests").is_directory
    settings = host.check_output("systemd-analyze cat-config systemd/journald@requests.conf")
    assert "SystemMaxUse=1G" in settings and "RateLimitIntervalSec=0" in settings
    assert '"request_id"' not in host.check_output("journalctl --output=cat --quiet --identifier=nginx")


def test_nginx_serves_whatever_becomes_of_the_journal(host: Any, site: Site) -> None:
    host.check_output("systemctl stop 'systemd-journald*@requests.*'")
    for _ in range(10):
        assert site.get("/health").status_code == 200
    host.check_output("nginx -t -q && systemctl restart nginx")
    mark = uuid.uuid4().hex
    wait_until(lambda: site.get(f"/health?{mark}").status_code == 200 and bool(requests(host, mark)), 20, "a line")
    host.check_output("systemctl restart systemd-journald@requests.service")
    mark = uuid.uuid4().hex
    wait_until(lambda: site.get(f"/health?{mark}").status_code == 200 and bool(requests(host, mark)), 20, "a line")


def test_each_record_of_server_and_app_is_a_line_of_json(host: Any, site: Site, live: dict[str, Any]) -> None:
    release = site.get("/api/about").json()["release"]
    started = float(host.check_output("date +%s.%N"))
    with pytest.raises(InvalidStatus) as refused, websocket(site, origin="https://evil.example"):
        pass
    host.check_output(f"systemctl reload {live['unit']}")
    wait_until(lambda: not live["workers"] & look(host)["workers"], 60, "new workers")
    loggers = {"gunicorn.error", "uvicorn.error", "guestbook.main"}
    wait_until(lambda: loggers <= {it["logger"] for it in records(host, live["unit"], started)}, 60, "records of each")
    said = records(host, live["unit"], started)
    of_all = {"time", "level", "logger", "message", "app", "release", "slot", "pid"}
    assert [record for record in said if not of_all <= set(record)] == []
    assert {(record["app"], record["release"], record["slot"]) for record in said} == {(APP, release, live["slot"])}
    identifier = refused.value.response.headers["X-Request-ID"]
    of_it = [record["message"] for record in said if record.get("request_id") == identifier]
    assert "refused a WebSocket from https://evil.example" in of_it


def test_metrics_are_for_prometheus_alone(host: Any) -> None:
    for path in ENDPOINTS:
        assert asked(host, path)[0] == 200
        assert asked(host, path, name="192.0.2.1")[0] == 200, "by whatever name it knows the host"
        assert asked(host, path, source="127.0.0.1")[0] == 404
        assert asked(host, path, source="127.0.0.1", name="192.0.2.1")[0] == 404
    place = host.file("/run/prometheus-node-exporter.sock")
    assert (place.user, place.group, place.mode) == ("root", "www-data", 0o660)
    assert host.run("ss -Htln sport = :9100").stdout == ""
    assert host.check_output("ss -Htln sport = :9113").split()[3] == "127.0.0.1:9113"


def test_exporters_tell_of_the_host_and_are_locked_down(host: Any, site: Site, live: dict[str, Any]) -> None:
    host.check_output("systemctl start slipway-metrics.service")
    node = scraped(host, "node")
    release = site.get("/api/about").json()["release"]
    assert total(node, "slipway_live_info", f'app="{APP}",release="{release}",slot="{live["slot"]}"') == 1
    expiry = total(node, "slipway_certificate_expiry_timestamp_seconds", f'app="{APP}"')
    assert expiry > time.time() + 86400
    assert total(node, "slipway_reboot_required") == 0
    assert total(node, "node_systemd_unit_state", f'name="{live["unit"]}",state="active"') == 1
    assert total(node, "node_filesystem_avail_bytes") > 0
    assert total(node, "node_textfile_scrape_error") == 0
    assert total(scraped(host, "nginx"), "nginx_up") == 1
    for unit in ("prometheus-node-exporter", "prometheus-nginx-exporter", "slipway-metrics"):
        assert exposure(host, f"{unit}.service") <= 2.0
    units = "slipway-metrics.service slipway-metrics.timer prometheus-node-exporter.socket"
    verified = host.run(f"systemd-analyze verify --man=no {units}")
    assert (verified.rc, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.only("debian-13")
def test_what_is_counted_through_a_switch(deploys: Deploys) -> None:
    host, site = deploys.host, deploys.site
    before = deploys.about()
    about = 'route="/api/about",status="200"'
    wait_until(lambda: total(scraped(host), "http_requests_total", about) > 0, 20, "a request is counted")
    with websocket(site):
        wait_until(lambda: total(scraped(host), "websockets_open") == 1, 20, "the WebSocket is counted")
        deploys.deploy(**deploys.release())
        # The slot before still holds its WebSocket, and is no part of what is told.
        assert total(scraped(host), "websockets_open") == 0
        after = [deploys.about() for _ in range(60)]
        release = after[0]["release"]
        assert {said["release"] for said in after} == {release} != {before["release"]}
        wait_until(lambda: total(scraped(host), "http_requests_total", about) >= 60, 20, "all are counted")
        assert total(scraped(host), "http_requests_total", about) == 60, "and each of them once"
    # No name of a series changes with a release or a worker.
    assert not re.search(r'(release|slot|pid)="', scraped(host))


@pytest.mark.only("debian-13")
def test_a_worker_that_dies_leaves_what_it_counted_and_nothing_live(deploys: Deploys) -> None:
    host, site = deploys.host, deploys.site
    live = look(host)
    counted = total(scraped(host), "http_requests_total", 'route="/api/about"')
    with websocket(site) as pid:
        wait_until(lambda: total(scraped(host), "websockets_open") == 1, 20, "the WebSocket is counted")
        host.check_output(f"kill -9 {pid}")
        wait_until(lambda: total(scraped(host), "websockets_open") == 0, 20, "it is counted no more")
    wait_until(lambda: len(look(host)["workers"]) == 2, 20, "another worker")
    assert host.run(f"ls /run/slipway/{APP}-{live['slot']} | grep '^gauge_live.*_{pid}[.]db$'").stdout == ""
    assert total(scraped(host), "http_requests_total", 'route="/api/about"') == counted


def test_each_metric_of_the_alerts_is_there(host: Any) -> None:
    groups = yaml.safe_load((ROOT / "docs/alerts.yml").read_text())["groups"]
    asks = " ".join(rule["expr"] for group in groups for rule in group["rules"])
    named = set(re.findall(r"\b(?:http|nginx|node|slipway)_\w+|\bwebsockets_open", asks))
    assert len(named) > 10
    told = "\n".join(scraped(host, path) for path in ENDPOINTS)
    assert {name for name in named if not re.search(rf"^{name}[{{ ]", told, re.MULTILINE)} == set()


@pytest.mark.only("debian-13")
def test_alerts_are_raised_by_what_they_are_for(host: Any) -> None:
    # Its program is all that is wanted of the package.
    host.check_output(
        "mkdir -p /root/rules && cd /root/rules && apt-get -qq -o APT::Sandbox::User=root update && "
        "apt-get -qq -o APT::Sandbox::User=root download promtool && dpkg-deb --extract promtool_*.deb ."
    )
    for name in ("alerts.yml", "alerts_test.yml"):
        host.check_output("printf %%s %s >%s", (ROOT / "docs" / name).read_text(), f"/root/rules/{name}")
    try:
        host.check_output("cd /root/rules && usr/bin/promtool check rules --lint=all --lint-fatal alerts.yml")
        print(host.check_output("cd /root/rules && usr/bin/promtool test rules alerts_test.yml"))
        host.check_output("/root/rules/usr/bin/promtool check metrics </var/lib/prometheus/node-exporter/slipway.prom")
    finally:
        host.check_output("rm -r /root/rules")
