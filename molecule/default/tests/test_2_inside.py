"""The host as its operator, and as an intruder, would find it."""

import json
import re
from typing import Any

import pytest
import yaml
from hosts import APP, ROOT, Site, ask_inside, exposure, play, wait_until

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


def test_a_secret_of_the_environment_is_for_the_app_and_root(host: Any, live: dict[str, Any]) -> None:
    inventory = yaml.safe_load((ROOT / "molecule/default/inventory.yml").read_text())
    ((name, secret),) = inventory["slipway"]["vars"]["slipway_apps"][APP]["secret_environment"].items()
    entries = host.file(f"/proc/{live['master']}/environ").content.decode().split("\0")
    assert f"{name}={secret}" in entries
    canary = secret.partition("\\")[0].strip()
    found = host.run(f"grep -rlF '{canary}' /etc /run /srv /var/log /var/lib /tmp").stdout.split()
    assert {re.sub("/(blue|green|generations/[0-9]+)/", "/SLOT/", path) for path in found} == {
        f"/etc/slipway/{APP}/SLOT/secrets/{name}.env"
    }
    stored = host.file(f"/etc/slipway/{APP}/{live['slot']}/secrets/{name}.env")
    assert (stored.user, stored.mode) == ("root", 0o600)
    assert host.file(f"/etc/slipway/{APP}/{live['slot']}/secrets").mode == 0o700
    for look in (f"systemctl show {live['unit']}", "ps axwww", "journalctl --no-pager"):
        assert canary not in host.check_output(look)
    for user in ("www-data", "slipway-build"):
        assert host.run(f"runuser -u {user} -- cat {stored.path} /proc/{live['master']}/environ").stdout == ""


def test_the_environment_arrives_byte_for_byte(host: Any, live: dict[str, Any]) -> None:
    entries = host.file(f"/proc/{live['master']}/environ").content_string.split("\0")
    assert "DISCOUNT=50% off" in entries


def test_limits(host: Any, live: dict[str, Any]) -> None:
    limits = host.file(f"/proc/{live['master']}/limits").content_string
    assert re.search(r"Max open files +16384 ", limits)
    assert re.search(r"Max core file size +0 ", limits)
    assert int(host.check_output("sysctl -n net.core.somaxconn")) == 4096
    resources = "MemoryMax,CPUWeight,TasksMax,OOMPolicy"
    shown = host.check_output(f"systemctl show --property={resources} {live['unit']}").split()
    assert set(shown) == {"MemoryMax=1073741824", "CPUWeight=200", "TasksMax=500", "OOMPolicy=continue"}


def test_every_unit_scores_as_promised(host: Any) -> None:
    units = host.check_output("cd /etc/systemd/system && ls slipway-*.service").split()
    assert {f"slipway-{APP}@blue.service", "slipway-wake.service"} <= set(units)
    scores = {unit: exposure(host, unit) for unit in [*units, "nginx.service"]}
    promised = {unit: 1.1 if unit.startswith(f"slipway-{APP}") else 2.0 for unit in scores}
    assert {unit: score for unit, score in scores.items() if score > promised[unit]} == {}


def test_units_are_without_reproach(host: Any, live: dict[str, Any]) -> None:
    for unit in (f"/etc/systemd/system/{live['unit']}", "slipway-wake.service", "nginx.service"):
        verified = host.run(f"systemd-analyze verify --man=no {unit}")
        assert (verified.rc, verified.stdout, verified.stderr) == (0, "", "")


def test_what_is_private_answers_the_host_itself(host: Any) -> None:
    status, body = ask_inside(host, "/ready")
    assert status == 200 and '"database":{"ok":true' in body.replace(" ", "")
    status, body = ask_inside(host, "/metrics")
    assert status == 200 and "# TYPE" in body
    assert ask_inside(host, "/.slipway/ready")[0] == 200


def test_nginx_has_one_privilege_and_no_root(host: Any) -> None:
    master = host.check_output("cat /run/nginx.pid")
    assert host.check_output("systemctl show --property=MainPID --value nginx") == master
    workers = host.check_output(f"pgrep --parent {master}").split()
    for process in (master, *workers):
        status = host.file(f"/proc/{process}/status").content_string
        assert re.search(r"(?m)^CapEff:\t0000000000000400$", status), "CAP_NET_BIND_SERVICE is bit 10"
        assert re.search(r"(?m)^CapBnd:\t0000000000000400$", status)
        assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
        assert host.check_output(f"ps -o user= -p {process}") == "www-data"


def test_nginx_is_looked_after_by_hand_as_people_are_used_to(host: Any) -> None:
    assert host.run("nginx -t -q").rc == 0
    master = host.check_output("cat /run/nginx.pid")
    workers = host.check_output(f"pgrep --parent {master}")
    host.check_output("nginx -s reload")
    wait_until(lambda: host.run(f"pgrep --parent {master}").stdout.strip() != workers, 10, "new workers")
    assert ask_inside(host, "/")[0] == 200
    assert host.check_output("cat /run/nginx.pid") == master


def test_a_site_of_the_users_own_has_its_own_log(host: Any) -> None:
    site = "server { listen 81; access_log /var/log/nginx/own.log; return 200 own; }"
    host.check_output(f"echo '{site}' >/etc/nginx/conf.d/own.conf; nginx -t -q")
    try:
        # What root has made by then is handed over.
        assert host.file("/var/log/nginx/own.log").user == "root"
        host.check_output("systemctl reload nginx")
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:81').read().decode())"
        wait_until(lambda: host.run("python3 -c %s", ask).stdout.strip() == "own", 10, "the site")
        log = host.file("/var/log/nginx/own.log")
        assert (log.user, log.group, log.mode) == ("www-data", "adm", 0o640)
        assert "GET / " in log.content_string
        # As Debian's logrotate does it.
        host.check_output(f"mv {log.path} {log.path}.1 && install -m 0640 -o www-data -g adm /dev/null {log.path}")
        host.check_output("invoke-rc.d nginx rotate")
        wait_until(lambda: host.run("python3 -c %s", ask).rc == 0 and log.size > 0, 10, "a line in the new log")
    finally:
        host.check_output("rm /etc/nginx/conf.d/own.conf /var/log/nginx/own.log*; systemctl reload nginx")


@pytest.mark.only("debian-13")
def test_a_site_of_the_users_own_with_a_key_for_root_alone(host: Any, container: str) -> None:
    site = "server { listen 82 ssl; ssl_certificate /root/own.pem; ssl_certificate_key /root/own.pem; return 200; }"
    key = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=own"
    host.check_output(f"umask 077; {key} -keyout /root/own.pem -out /root/own.crt && cat /root/own.crt >>/root/own.pem")
    host.check_output(f"echo '{site}' >/etc/nginx/conf.d/own.conf")
    listens = "ss --listening --tcp --no-header 'sport = :82'"
    root = ("-e", "nginx_master=root")
    try:
        # nginx goes on with what it has, and says why.
        assert host.run("systemctl reload nginx").rc != 0
        assert ask_inside(host, "/")[0] == 200
        with pytest.raises(AssertionError) as refused:
            play(container, "-e", "nginx_worker_connections=4096")
        assert "nginx_master is www-data" in str(refused.value) and "nginx_master" in str(refused.value)
        assert ask_inside(host, "/")[0] == 200
        play(container, *root)
        assert host.check_output(listens)
        assert ask_inside(host, "/")[0] == 200
        assert exposure(host, "nginx.service") <= 2.8
        assert "changed=0" in play(container, *root)
    finally:
        host.check_output("rm /etc/nginx/conf.d/own.conf")
        play(container)
    assert exposure(host, "nginx.service") <= 2.0


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
    assert (host.file(path).user, host.file(path).group, host.file(path).mode) == ("root", "slipway-keys", 0o640)
    assert host.check_output("getent group slipway-keys").endswith(":")
    assert host.run(f"runuser -u www-data -- cat {path}").rc != 0
