"""What the roles app and host write, rendered by Ansible's own Templar: an app's units, its settings, its users."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest
import slipway_log
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.slipway.asgi.plugins.action.config_set import ActionModule
from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files

ROLES = Path(__file__).resolve().parents[2] / "roles"
APP: dict[str, Any] = {
    "name": "shop",
    "domains": ["shop.example.com"],
    "entrypoint": "shop.main:app",
    "server": "gunicorn",
    "threads": "auto",
    "workers": "auto",
    "preload": False,
    "max_requests": 1000,
    "log_level": "info",
    "environment": {"GREETING": 'say "hi" for $5, 100% \\ done', "B": 1},
    "secrets": {"session_key": "slipway_apps.shop.secrets.session_key", "database_url": "elsewhere"},
    "secret_environment": {"API_KEY": "elsewhere"},
    "sandbox": {"network": "open", "metadata": False, "jit": False, "processes": False, "tools": False, "writable": []},
    "resources": {"memory": None, "cpu_weight": None, "tasks": 4096},
    "migrate": "alembic upgrade head",
    "ready_path": "/ready",
    "ready_seconds": 60,
    "drain_seconds": 30,
}


def render(role: str, files: list[dict[str, Any]] | str, extra: dict[str, Any], **variables: Any) -> dict[str, str]:
    """The files of a role by their path; a text names the variable of the role that lists them."""
    loader = DataLoader()
    loader.set_basedir(str(ROLES / role))
    scope: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        scope |= loader.load_from_file(str(ROLES / role / part / "main.yml"), trusted_as_template=True)
    scope |= variables
    templar = Templar(loader, scope)
    nowhere: Any = None  # rendering needs no host
    action = ActionModule(Task(), nowhere, nowhere, loader, templar, nowhere)
    entries = templar.template(scope[files]) if isinstance(files, str) else files
    return {file["path"]: file["content"] for file in render_files(action, entries, scope, extra)}


def slot(**options: Any) -> dict[str, str]:
    """The configuration of a slot for the app with these options."""
    return render("app", "__app_files", {"app": {**APP, **options}})


def settings(files: dict[str, str], directory: Path, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """What gunicorn would read: the file is run, with the slot holding release r1."""
    monkeypatch.setenv("SLIPWAY_APP", "shop")
    monkeypatch.setenv("SLIPWAY_SLOT", "blue")
    source = directory / "releases/r1/src"
    source.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(source)
    # This process keeps its own logging.
    monkeypatch.setattr(slipway_log, "configure", lambda: None)
    for path, text in files.items():
        if path.endswith(".py"):
            (directory / path).write_text(text)
    return types.SimpleNamespace(**runpy.run_path(str(directory / "gunicorn.conf.py")))


def test_every_file_of_a_slot_says_who_manages_it_and_no_jinja_is_left() -> None:
    for path, text in slot().items():
        assert "{{" not in text and "{%" not in text, path
        if not path.startswith("slipway_"):
            assert text.startswith("#\n# Ansible managed\n#\n"), path


def test_the_timeouts_fit_into_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = slot(drain_seconds=45)
    found = settings(files, tmp_path, monkeypatch)
    stop = int(re.findall(r"^TimeoutStopSec=(\d+)$", files["service"], re.MULTILINE)[0])
    cancel = 5 + 2  # CANCEL_SECONDS and POOL_SECONDS of the worker
    assert 45 + cancel < found.graceful_timeout < stop
    assert found.graceful_timeout <= found.timeout / 2
    # Who is given time to start is not ended before.
    assert settings(slot(drain_seconds=0, ready_seconds=300), tmp_path, monkeypatch).timeout == 300


def test_settings_of_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = settings(slot(), tmp_path, monkeypatch)
    assert found.workers >= 2
    assert found.wsgi_app == "shop.main:app"
    assert found.logger_class is slipway_log.gunicorn_logger
    # nginx keeps a connection for 0.3 s.
    assert found.keepalive == 75
    assert (found.max_requests, found.max_requests_jitter) == (1000, 100)
    assert os.environ["SLIPWAY_RELEASE"] == "r1"
    assert os.environ["SLIPWAY_DRAIN_SECONDS"] == "30"
    assert not found.preload_app
    found = settings(slot(workers="7", preload=True), tmp_path, monkeypatch)
    assert (found.workers, found.preload_app) == (7, True)


@pytest.mark.parametrize("server", ["gunicorn", "gunicorn-wsgi", "uvicorn", "hypercorn", "waitress"])
def test_a_reload_is_checked_before_or_there_is_none(server: str) -> None:
    files = slot(server=server)
    reloads = re.findall(r"^ExecReload=(\S+) .*$", files["service"], re.MULTILINE)
    assert reloads == (["+/usr/bin/systemctl", "/bin/kill"] if server.startswith("gunicorn") else [])
    assert ("check.service" in files) == ("gunicorn.conf.py" in files) == bool(reloads)


def sandbox(**options: Any) -> list[str]:
    """What every unit of an app has of its sandbox and its secrets, which is the same in each."""
    files = slot(after_switch="shop warm", after_rollback="shop cool", **options)
    units = [text for path, text in files.items() if path.endswith("service")]
    assert len(units) == 5
    assert all("StartLimitIntervalSec=0" in text for text in units)
    (found,) = {text[text.index("User=slipway-shop\n") :] for text in units}
    return found.splitlines()


def test_all_units_of_an_app_have_the_same_sandbox_and_secrets() -> None:
    found = sandbox()
    assert "LoadCredential=database_url:/etc/slipway/shop/%i/secrets/database_url" in found
    assert "EnvironmentFile=/etc/slipway/shop/%i/secrets/API_KEY.env" in found
    assert {"TasksMax=4096", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"} <= set(found)
    assert "SystemCallErrorNumber=EPERM" in found
    assert not [line for line in found if line.startswith(("MemoryMax", "CPUWeight"))]


def test_resources() -> None:
    limits = {"MemoryMax=512M", "CPUWeight=50", "TasksMax=100"}
    assert limits <= set(sandbox(resources={"memory": "512M", "cpu_weight": 50, "tasks": 100}))


NO_PROGRAMS = {
    "MemoryDenyWriteExecute=yes",
    "NoExecPaths=/tmp /var/tmp /var/lib/slipway/shop -/run/slipway/shop-%i",
    "TemporaryFileSystem=/dev/shm:mode=1777,noexec",
}
WRITABLE = {f"{what}=/srv/{name}" for what in ("ReadWritePaths", "NoExecPaths") for name in "ab"}
METADATA = "IPAddressDeny=169.254.169.254 fd00:ec2::254 fd20:ce::254 100.100.100.200"


@pytest.mark.parametrize(
    ("switch", "taken", "given", "score"),
    [
        ({}, set(), set(), 1.1),
        ({"network": "local"}, {METADATA}, {"IPAddressDeny=any", "IPAddressAllow=localhost"}, 0.9),
        ({"metadata": True}, {METADATA}, set(), 1.1),
        ({"jit": True}, NO_PROGRAMS, {"TemporaryFileSystem=/dev/shm:mode=1777"}, 1.1),
        ({"processes": True}, {"ProcSubset=pid"}, set(), 1.1),
        ({"tools": True}, set(), {"SystemCallFilter=@resources"}, 1.2),
        ({"writable": ["/srv/b", "/srv/a"]}, set(), WRITABLE, 1.1),
    ],
    ids=["closed", "local", "metadata", "jit", "processes", "tools", "writable"],
)
def test_a_switch_opens_the_sandbox_by_what_it_says(
    switch: dict[str, Any], taken: set[str], given: set[str], score: float, tmp_path: Path
) -> None:
    closed = sandbox()
    opened = sandbox(sandbox={**APP["sandbox"], **switch})
    mounts = {"", "# What is mounted there is there before the app.", "[Unit]", "RequiresMountsFor=/srv/a /srv/b"}
    assert {line for line in closed if line not in opened and not line.startswith("#")} == taken
    assert set(opened) - set(closed) - mounts == given
    # What it costs, where there is a systemd to ask.
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "slipway-shop.service"
        unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", *opened, ""]).replace("%i", "blue"))
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", shown)[0]) == score


def test_a_hook_is_a_unit_that_runs_its_command() -> None:
    files = slot(after_rollback="shop clear")
    assert files["after_rollback"].endswith("\nset -e\nshop clear\n")
    assert "ExecStart=/bin/sh /etc/slipway/shop/%i/after_rollback\n" in files["after_rollback.service"]
    assert not {"after_switch", "after_switch.service"} & set(files)


def test_an_app_without_a_migration_has_no_unit_for_one() -> None:
    assert {"migrate", "migrate.service"} <= set(slot())
    assert not {"migrate", "migrate.service"} & set(slot(migrate=""))


def test_the_environment_is_quoted_for_systemd() -> None:
    assert slot()["environment"].endswith('B="1"\nGREETING="say \\"hi\\" for \\$5, 100% \\\\ done"\n')


def test_each_app_has_a_user_of_its_own() -> None:
    entry = {"path": "{name}", "template": "sysusers.conf.j2", "each": [{**APP, "name": "zoo"}, APP]}
    files = render("app", [entry], {})
    assert {name: re.findall(r"^u (\S+)", text, re.MULTILINE) for name, text in files.items()} == {
        "zoo": ["slipway-zoo"],
        "shop": ["slipway-shop"],
    }


def test_the_kernel_and_the_journal() -> None:
    entries = [
        {"path": "sysctl", "template": "sysctl.conf.j2"},
        {"path": "journald", "template": "journald.conf.j2"},
    ]
    files = render("host", entries, {}, host_journal_max="300M")
    assert "net.core.somaxconn = 4096" in files["sysctl"]
    assert "Storage=persistent\nSystemMaxUse=300M" in files["journald"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("", {"Automatic-Reboot": "false"}),
        ("04:00", {"Automatic-Reboot": "true", "Automatic-Reboot-Time": "04:00"}),
    ],
)
def test_updates_restart_the_host_at_the_time_that_is_said_or_never(time: str, expected: dict[str, str]) -> None:
    text = render("host", [{"path": "apt", "template": "apt.conf.j2"}], {}, host_reboot_at=time)["apt"]
    assert dict(re.findall(r'^Unattended-Upgrade::(\S+) "(.*)";$', text, re.MULTILINE)) == expected
    assert set(re.findall(r'^APT::Periodic::\S+ "(.*)";$', text, re.MULTILINE)) == {"1"}


def test_ssh_takes_no_password_and_loosens_nothing() -> None:
    text = render("host", [{"path": "sshd", "template": "sshd.conf.j2"}], {})["sshd"]
    settings = [line.strip() for line in text.splitlines() if line and not line.startswith("#")]
    no = ["PasswordAuthentication no", "KbdInteractiveAuthentication no"]
    assert settings == [*no, "Match User root", *no]


def test_what_the_front_is_told_by_is_quoted_for_systemd() -> None:
    entry = {"path": "acme", "template": "slipway-acme.service.j2"}
    files = render("certificates", [entry], {}, certificates_validate='say "50%n" $5 \\', certificates_service="nginx")
    lines = files["acme"].splitlines()
    assert 'Environment="FRONT_VALIDATE=say \\"50%%n\\" $5 \\\\"' in lines
    assert {'Environment="FRONT_PENDING="', 'Environment="FRONT_SERVICE=nginx"'} <= set(lines)
