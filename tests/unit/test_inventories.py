"""What each layer of the example inventories yields, resolved by a real ansible-playbook with a real vault."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ["staging", "production"]
VAULT = "group_vars/all/vault.yml"
# Django's environment in both examples, on top of which the layers put theirs.
SHOP = {"DJANGO_SETTINGS_MODULE": "shop.settings", "SHOP_CURRENCY": "EUR"}
# There are no hosts to gather facts from.
PLAY = """
- hosts: slipway
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact: {distribution: Debian, distribution_version: "12.11", cacheable: true}
    - slipway.asgi.resolve_apps:
"""


def run(program: str, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Inventory:
    """A copy of an example, in which the secrets are encrypted by the commands that stand in it."""

    def __init__(self, name: str, directory: Path, secrets: Mapping[str, str]) -> None:
        self.path = directory / name
        shutil.copytree(ROOT / "inventories" / name, self.path)
        self.play = directory / "resolve.yml"
        self.play.write_text(PLAY)
        self.password = directory / "password"
        self.password.write_text("correct horse battery staple\n")
        example = (self.path / f"{VAULT}.example").read_text()
        self.secrets = {name: secrets.get(name, f"canary-{name}") for name in yaml.safe_load(example)}
        for secret, value in self.secrets.items():
            example = example.replace(f'{secret}: ""', f'{secret}: "{value}"')
        (directory / "vault.yml").write_text(example)
        done = self.run("ansible-vault", "encrypt", "--output", self.path / VAULT, directory / "vault.yml")
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        return run(program, *arguments, ANSIBLE_VAULT_PASSWORD_FILE=str(self.password), **settings)

    def resolve(self, *arguments: str) -> dict[str, Any]:
        """For each host, what all the roles together are told of each app."""
        callback = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
        done = self.run("ansible-playbook", "-i", self.path, *arguments, self.play, **callback)
        assert done.returncode == 0, done.stdout
        hosts = json.loads(done.stdout)["plays"][0]["tasks"][-1]["hosts"]
        return {host: merged(result["views"]) for host, result in hosts.items()}


def merged(views: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    apps: dict[str, dict[str, Any]] = {}
    for view in views.values():
        for app in view:
            apps.setdefault(app["name"], {}).update(app)
    return apps


@pytest.fixture(scope="module")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inventory]:
    return {name: Inventory(name, tmp_path_factory.mktemp("inventory"), {}) for name in EXAMPLES}


@pytest.fixture(scope="module")
def resolved(inventories: dict[str, Inventory]) -> dict[str, Any]:
    return {host: apps for inventory in inventories.values() for host, apps in inventory.resolve().items()}


@pytest.mark.parametrize(
    ("host", "app", "expected"),
    [
        (
            "staging.example.com",
            "shop",
            {
                "domains": ["shop.staging.example.com"],
                "python": "3.13",
                "workers": "1",
                "keep_releases": 2,
                "environment": {**SHOP, "LOG_LEVEL": "debug"},
                "headers": {"X-Robots-Tag": "noindex"},
                "drain_seconds": 30,
            },
        ),
        (
            "web1.example.com",
            "shop",
            {
                "domains": ["shop.example.com", "www.shop.example.com"],
                "python": "3.13",
                "workers": "8",
                "keep_releases": 5,
                "environment": {**SHOP, "LOG_LEVEL": "info"},
                "headers": {},
                "drain_seconds": 30,
            },
        ),
        ("web3.example.com", "shop", {"workers": "auto", "environment": {**SHOP, "LOG_LEVEL": "info"}}),
        ("staging.example.com", "api", {"workers": "1", "environment": {"LOG_LEVEL": "debug"}, "max_body_size": "50m"}),
        ("web2.example.com", "api", {"workers": "4", "environment": {"LOG_LEVEL": "info"}, "websocket_paths": ["/ws"]}),
        ("web3.example.com", "api", {"workers": "auto", "environment": {"LOG_LEVEL": "debug"}, "ready_seconds": 120}),
    ],
)
def test_each_layer_says_its_part(resolved: dict[str, Any], host: str, app: str, expected: dict[str, Any]) -> None:
    values = resolved[host][app]
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("host", "version"),
    [("staging.example.com", "main"), *((f"web{number}.example.com", "v1.4.2") for number in (1, 2, 3))],
)
def test_production_runs_a_tag_and_staging_a_branch(resolved: dict[str, Any], host: str, version: str) -> None:
    source = resolved[host]["shop"]["source"]
    assert (source["git"], source["version"]) == ("https://git.example.com/shop.git", version)


def test_both_examples_have_the_same_apps_with_the_same_keys(resolved: dict[str, Any]) -> None:
    assert all(list(apps) == ["shop", "api"] for apps in resolved.values())
    for app in ("shop", "api"):
        secrets = [list(apps[app]["secrets"]) for apps in resolved.values()]
        assert all(names == secrets[0] for names in secrets)


def test_the_host_wins_over_its_group_and_the_command_line_over_both(tmp_path: Path) -> None:
    inventory = Inventory("production", tmp_path, {})
    own = {"slipway_app_overrides_host": {"shop": {"workers": 12}}}
    (inventory.path / "host_vars/web1.example.com.yml").write_text(yaml.safe_dump(own))
    now = {"slipway_app_overrides_now": {"shop": {"source": {"version": "v1.5.0"}}}}
    apps = inventory.resolve("-e", json.dumps(now))
    assert [apps[f"web{number}.example.com"]["shop"]["workers"] for number in (1, 2, 3)] == ["12", "8", "auto"]
    assert {host["shop"]["source"]["version"] for host in apps.values()} == {"v1.5.0"}
    assert {host["api"]["source"]["version"] for host in apps.values()} == {"v0.9.0"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_reference_to_a_secret_leads_to_the_vault(
    inventories: dict[str, Inventory], resolved: dict[str, Any], name: str
) -> None:
    inventory = inventories[name]
    done = inventory.run("ansible-inventory", "-i", inventory.path, "--list")
    followed = set()
    for host, variables in json.loads(done.stdout)["_meta"]["hostvars"].items():
        for app in resolved[host].values():
            for secret, reference in app["secrets"].items():
                value: Any = variables
                for step in reference.split("."):
                    value = value[step]
                variable = f"vault_{app['name']}_{secret}"
                assert value == f"{{{{ {variable} }}}}"
                assert variables[variable] == f"canary-{variable}"
                followed.add(variable)
    assert followed == set(inventory.secrets)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_secret_is_ever_shown(inventories: dict[str, Inventory], name: str) -> None:
    inventory = inventories[name]
    done = inventory.run("ansible-playbook", "-vvvv", "-i", inventory.path, inventory.play)
    assert done.returncode == 0, done.stdout
    assert "vault_shop_database_url" not in done.stdout and "database_url" in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_a_secret_that_nobody_filled_in_is_refused(tmp_path: Path) -> None:
    inventory = Inventory("production", tmp_path, {"vault_shop_secret_key": ""})
    done = inventory.run("ansible-playbook", "-i", inventory.path, "--limit", "web1.example.com", inventory.play)
    assert done.returncode != 0
    assert "slipway_apps.shop.secrets.secret_key: a secret is a text that is not empty" in done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_work_before_anybody_wrote_a_secret(name: str) -> None:
    path = ROOT / "inventories" / name
    done = run("ansible-inventory", "-i", path, "--list")
    assert done.returncode == 0, done.stderr
    hosts = json.loads(done.stdout)["slipway"]["hosts"]
    assert hosts and all(re.fullmatch(r"[a-z0-9]+\.example\.com", host) for host in hosts)
    playbooks = sorted((ROOT / "playbooks").glob("*.yml"))
    done = run("ansible-playbook", "-i", path, "--syntax-check", *playbooks)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_name_secrets_without_values(name: str) -> None:
    example = ROOT / "inventories" / name / f"{VAULT}.example"
    assert set(yaml.safe_load(example.read_text()).values()) == {""}
