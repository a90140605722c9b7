"""A bare host is bare again."""

import copy
import socket
from pathlib import Path

import pytest
import yaml
from hosts import APP, ROOT, STATE, wait_until
from removing import RESTS, Host, Snapshot

pytestmark = pytest.mark.only("bare")

# What stays of an app until its data is meant, too.
KEPT = {
    "file": {
        "/var/lib/slipway": "data",
        "/var/lib/slipway/guestbook*": "data",
        "/etc/slipway": "certificates",
        "/etc/slipway/certificates*": "certificates",
        "/var/lib/slipway-acme*": "certificates",
        "/etc/sysusers.d": "whose these are",
        "/etc/sysusers.d/slipway-*.conf": "whose these are",
    },
    "user": {"slipway-guestbook": "whose these are", "slipway-acme": "whose these are"},
    "group": {f"slipway-{name}": "whose these are" for name in ("acme", "guestbook", "keys")},
}


@pytest.fixture(scope="module", autouse=True)
def bare(removal: Host) -> Snapshot:
    """What the host was before Slipway came."""
    return removal.snapshot()


def test_one_app_leaves_nothing_and_the_other_as_it_was(removal: Host, tmp_path: Path) -> None:
    # What Prometheus is told is as old as five minutes.
    tell = "systemctl start slipway-metrics.service"
    removal.play()
    removal.host.check_output(tell)
    before = removal.snapshot()
    apps = yaml.safe_load((ROOT / "molecule/removal/inventory.yml").read_text())["slipway"]["vars"]["slipway_apps"]
    apps[APP]["source"]["path"] = str(ROOT / "sample_app")
    apps["blog"] = {
        **apps[APP],
        "domains": ["blog.example"],
        "secrets": {"session_key": "no secret either, this is only a test of a blog"},
    }
    layer = tmp_path / "blog.yml"
    layer.write_text(yaml.safe_dump({"blog": {"hosts": {removal.container: {"slipway_apps": apps}}}}))
    removal.play(inventories=(layer,))
    assert removal.host.file("/srv/slipway/blog/live").exists
    removal.play("remove", "-e", "app=blog", "-e", "remove_data=true", inventories=(layer,))
    removal.host.check_output(tell)
    rests = copy.deepcopy(RESTS)
    rests["file"] |= dict.fromkeys(("/etc/nginx/slipway/current", "/etc/nginx/slipway/generations*"), "a number")
    rests["file"]["/var/lib/slipway-acme/report.json"] = "what the CA said last, and when"
    removal.insist_on(before, rests)
    assert removal.site.is_up()


def test_a_host_is_as_it_was(removal: Host, bare: Snapshot) -> None:
    host = removal.host
    assert removal.site.is_up()

    rests = copy.deepcopy(RESTS)
    for kind, patterns in KEPT.items():
        rests[kind].update(patterns)
    said = removal.remove()
    assert "The apps' data and users stay" in said
    removal.insist_on(bare, rests)
    assert host.file(f"{STATE}/guestbook.sqlite3").user == "slipway-guestbook"
    assert host.file("/etc/slipway/certificates/guestbook/privkey.pem").mode == 0o640
    assert host.check_output("ls -A /etc/slipway /var/lib/slipway") == (
        "/etc/slipway:\ncertificates\n\n/var/lib/slipway:\nguestbook"
    )

    said = removal.remove("-e", "remove_data=true")
    assert "data and users stay" not in said
    removal.insist_on(bare)
    said = removal.remove("-e", "remove_data=true")
    assert " changed=0 " in said and "Slipway was not on this host" in said


def test_its_ports_are_open_again(removal: Host) -> None:
    removal.host.check_output("systemd-run --quiet --unit=listener python3 -m http.server 9000")
    address = removal.site.address.removeprefix("https://")

    def is_open() -> bool:
        with socket.socket() as asking:
            asking.settimeout(2)
            return asking.connect_ex((address, 9000)) == 0

    wait_until(is_open, 30, "a listener is reached from outside")
    removal.host.check_output("systemctl stop listener")
