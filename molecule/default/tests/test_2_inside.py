"""The host as its operator, and as an intruder, would find it."""

import json
import re
from typing import Any

import pytest
from hosts import APP, Site, ask_inside

SOCKETS = "/run/slipway"


def test_nothing_has_failed(host: Any) -> None:
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""


def test_only_nginx_listens_to_the_network(host: Any) -> None:
    listening = host.check_output("ss --listening --tcp --udp --numeric --no-header --processes")
    strangers = [
        line for line in listening.splitlines() if "nginx" not in line and not re.search(r"127\.0\.0\.|\[::1\]", line)
    ]
    assert strangers == []


def test_sockets_open_for_root_and_nginx_alone(host: Any, live: dict[str, Any]) -> None:
    socket = host.file(f"{SOCKETS}/{APP}-{live['slot']}.sock")
    assert socket.is_socket
    assert (socket.user, socket.group, socket.mode) == ("root", "www-data", 0o660)
    assert host.run(f"runuser -u slipway-{APP} -- test -w {SOCKETS}/{APP}-{live['slot']}.sock").rc != 0
    backlog = host.check_output(f"ss --listening --unix --no-header | grep '{APP}-{live['slot']}.sock'").split()[3]
    assert int(backlog) == 4096


def test_both_sockets_are_enabled_and_no_service_is(host: Any, live: dict[str, Any]) -> None:
    assert host.check_output(f"systemctl is-enabled slipway-{APP}@{live['slot']}.socket") == "enabled"
    assert host.run(f"systemctl is-enabled {live['unit']}").stdout.strip() == "static"
    assert host.check_output("systemctl is-enabled slipway-wake.service") == "enabled"


def test_the_app_runs_as_its_own_user(host: Any, live: dict[str, Any]) -> None:
    owners = host.check_output(f"ps -o user:32= -p {live['master']} -p {' -p '.join(live['workers'])}").split()
    assert set(owners) == {f"slipway-{APP}"}
    user = host.user(f"slipway-{APP}")
    assert user.shell.endswith("nologin")
    assert user.home == f"/var/lib/slipway/{APP}"
    assert len(live["workers"]) == 2


def test_the_app_cannot_write_what_it_runs(host: Any) -> None:
    writable = f"find /srv/slipway /etc/slipway /opt/slipway -user slipway-{APP} -o -perm -o+w -not -type l"
    assert host.check_output(writable) == ""
    assert host.check_output("find /srv/slipway /opt/slipway -user slipway-build") == ""


def test_state_is_the_apps_alone(host: Any) -> None:
    state = host.file(f"/var/lib/slipway/{APP}")
    assert (state.user, state.mode) == (f"slipway-{APP}", 0o700)


def test_a_secret_arrives_and_is_nowhere_else(host: Any, live: dict[str, Any]) -> None:
    stored = host.file(f"/etc/slipway/{APP}/{live['slot']}/secrets/session_key")
    assert (stored.user, stored.mode) == ("root", 0o600)
    secret = stored.content_string
    assert host.file(f"/run/credentials/{live['unit']}/session_key").content_string == secret
    environment = host.file(f"/proc/{live['master']}/environ").content_string
    assert secret not in environment
    assert secret not in host.check_output(f"systemctl show {live['unit']}")
    assert host.run(f"runuser -u www-data -- cat {stored.path}").rc != 0
    assert host.run(f"grep -rlF '{secret}' /srv/slipway /etc/systemd /var/log").stdout == ""


def test_the_environment_arrives_byte_for_byte(host: Any, live: dict[str, Any]) -> None:
    entries = host.file(f"/proc/{live['master']}/environ").content_string.split("\0")
    assert "DISCOUNT=50% off" in entries


def test_limits(host: Any, live: dict[str, Any]) -> None:
    limits = host.file(f"/proc/{live['master']}/limits").content_string
    assert re.search(r"Max open files +16384 ", limits)
    assert re.search(r"Max core file size +0 ", limits)
    assert int(host.check_output("sysctl -n net.core.somaxconn")) == 4096


def test_the_sandbox_scores_as_promised(host: Any, live: dict[str, Any]) -> None:
    shown = host.check_output(f"systemd-analyze security --no-pager {live['unit']}")
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert score
    print(f"{live['unit']}: {score[1]}")
    assert float(score[1]) <= 1.1


def test_units_are_without_reproach(host: Any, live: dict[str, Any]) -> None:
    verified = host.run(f"systemd-analyze verify --man=no /etc/systemd/system/{live['unit']}")
    assert (verified.rc, verified.stdout, verified.stderr) == (0, "", "")


def test_what_is_private_answers_the_host_itself(host: Any) -> None:
    status, body = ask_inside(host, "/ready")
    assert status == 200 and '"database":{"ok":true' in body.replace(" ", "")
    status, body = ask_inside(host, "/metrics")
    assert status == 200 and "# TYPE" in body
    assert ask_inside(host, "/.slipway/ready")[0] == 200


def test_plain_nginx_t_passes(host: Any) -> None:
    assert host.run("nginx -t -q").rc == 0


def test_the_journal_is_kept_within_bounds(host: Any) -> None:
    assert host.file("/var/log/journal").is_directory
    settings = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "SystemMaxUse=1G" in settings


def test_the_clock_is_kept(host: Any) -> None:
    assert host.check_output("systemctl is-enabled systemd-timesyncd.service") == "enabled"


def test_the_release_is_complete_and_its_python_the_hosts_own(host: Any, site: Site) -> None:
    release = site.get("/api/about").json()["release"]
    assert host.file(f"/srv/slipway/{APP}/releases/{release}/complete").exists
    assert host.run(f"/srv/slipway/{APP}/releases/{release}/.venv/bin/python -c pass").rc == 0


def test_the_bill_of_materials_names_all_that_the_app_can_import(host: Any, live: dict[str, Any]) -> None:
    release = f"/srv/slipway/{APP}/slots/{live['slot']}/release"
    bill = host.file(f"{release}/sbom.json")
    assert (bill.user, bill.mode) == ("root", 0o644)
    entries = [entry for entry in json.loads(bill.content_string)["components"] if "purl" in entry]
    listed = "import importlib.metadata as m; print(*(f'{d.name} {d.version}' for d in m.distributions()), sep='\\n')"
    installed = host.check_output(f'{release}/.venv/bin/python -c "{listed}"').splitlines()
    assert sorted(f"{entry['name']} {entry['version']}" for entry in entries) == sorted(installed)


@pytest.mark.parametrize("path", ["/etc/slipway/certificates/guestbook/privkey.pem"])
def test_private_keys_are_roots(host: Any, path: str) -> None:
    assert (host.file(path).user, host.file(path).mode & 0o077) == ("root", 0)
    assert host.run(f"runuser -u www-data -- cat {path}").rc != 0
