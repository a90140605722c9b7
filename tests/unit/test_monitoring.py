"""What the role monitoring tells of apps, how its units are locked down, and whom it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_role_templates import ROLES, render

Playbook = Callable[..., dict[str, list[dict[str, Any]]]]
UNITS = {"node_exporter.conf.j2": 1.3, "nginx_exporter.conf.j2": 0.9, "slipway-metrics.service.j2": 0.7}


def tell(root: Path) -> dict[str, float]:
    """What metrics.sh says of a directory that stands for a host, by metric and labels."""
    script = (ROLES / "monitoring/files/metrics.sh").read_text()
    for place in ("/srv/slipway", "/etc/slipway", "/run/reboot-required"):
        script = script.replace(place, f"{root}{place}")
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    said = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert re.findall(r"^# TYPE (\S+) gauge$", done.stdout, re.MULTILINE)
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in said)}


def live(root: Path, app: str, slot: str, release: str) -> None:
    """Let an app be live."""
    home = root / "srv/slipway" / app
    (home / "slots" / slot).mkdir(parents=True)
    (home / "releases" / release).mkdir(parents=True)
    (home / "slots" / slot / "release").symlink_to(f"../../releases/{release}")
    (home / "live").symlink_to(f"slots/{slot}")


def test_what_is_told_of_apps(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tell(tmp_path) == {"slipway_reboot_required": 0}
    live(tmp_path, "shop", "blue", "r1")
    live(tmp_path, "a-blog", "green", "r2")
    # Its certificate is not there, and another one's data stayed when it was taken away.
    (tmp_path / "srv/slipway/gone").mkdir()
    certificate = tmp_path / "etc/slipway/certificates/shop"
    certificate.mkdir(parents=True)
    (tmp_path / "run/reboot-required").touch()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-keyout", "/dev/null", "-out", certificate / "fullchain.pem", "-days", "10", "-subj", "/CN=x"],
        check=True,
        capture_output=True,
    )
    told = tell(tmp_path)
    expiry = told.pop('slipway_certificate_expiry_timestamp_seconds{app="shop"}')
    assert 9.9 < (expiry - time.time()) / 86400 <= 10
    assert told == {
        'slipway_live_info{app="a-blog",release="r2",slot="green"}': 1,
        'slipway_live_info{app="shop",release="r1",slot="blue"}': 1,
        "slipway_reboot_required": 1,
    }


@pytest.mark.parametrize("template", UNITS)
def test_units_are_locked_down(template: str, tmp_path: Path) -> None:
    text = render("monitoring", [{"path": "unit", "template": template}], {})["unit"]
    assert "{{" not in text and text.startswith("#\n# Ansible managed\n#\n")
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "unit.service"
        user = "" if "metrics" in template else "User=prometheus\n"
        unit.write_text(f"[Service]\nExecStart=/bin/true\n{user}{text}")
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", shown)[0]) == UNITS[template]


def test_no_exporter_listens_to_the_network() -> None:
    entries = [{"path": name, "template": name} for name in (*UNITS, "node_exporter.socket.j2")]
    files = render("monitoring", entries, {})
    assert "--web.systemd-socket " in files["node_exporter.conf.j2"]
    assert "RestrictAddressFamilies=AF_UNIX AF_NETLINK\n" in files["node_exporter.conf.j2"]
    assert "--web.listen-address=127.0.0.1:9113 " in files["nginx_exporter.conf.j2"]
    (listens,) = re.findall(r"^ListenStream=(\S+)$", files["node_exporter.socket.j2"], re.MULTILINE)
    assert "SocketGroup=www-data\nSocketMode=0660\n" in files["node_exporter.socket.j2"]
    # Where nginx asks.
    nginx = (ROLES / "nginx/vars/main.yml").read_text()
    assert f"http://unix:{listens}:/metrics" in nginx and "http://127.0.0.1:9113/metrics" in nginx


def test_what_tells_of_apps_runs_with_the_exporter_and_never_before_it() -> None:
    names = ("node_exporter.conf.j2", "slipway-metrics.timer.j2")
    files = render("monitoring", [{"path": name, "template": name} for name in names], {})
    assert "\nWants=slipway-metrics.timer\n" in files["node_exporter.conf.j2"]
    assert "[Install]" not in files["slipway-metrics.timer.j2"]


def test_exporters_that_are_too_old_are_refused(playbook: Playbook, tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.set_fact": {"distribution_version": "22.04", "cacheable": True}},
        {"ansible.builtin.import_role": {"name": "slipway.asgi.monitoring"}},
    ]
    *_, last = playbook(tmp_path, tasks, {"localhost": {"monitoring_enabled": True}}, "--check")["localhost"]
    assert last["failed"] and "slipway_prometheus" in last["msg"]
