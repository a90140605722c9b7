"""What a user writes about apps, resolved with Ansible's real loader and templates, and by the action in a real run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.slipway.asgi.plugins.action.release import ActionModule
from ansible_collections.slipway.asgi.plugins.action.resolve_apps import origin, written
from ansible_collections.slipway.asgi.plugins.module_utils.wanted import APP_OPTIONS
from ansible_collections.slipway.asgi.plugins.plugin_utils.apps import (
    VIEWS,
    Context,
    Mistakes,
    check,
    load_specs,
    load_variables,
    resolve,
)
from ansible_collections.slipway.asgi.plugins.plugin_utils.wanted import complete, credentials_of, migrates, secrets_of

ROLES = Path(__file__).resolve().parents[2] / "roles"
SPECS = load_specs(ROLES)
VARIABLES = load_variables(ROLES)
# Where it is clearer than the roles' own: a few options that say what they are for.
SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "app": {
        "name": {"type": "str", "required": True},
        "domains": {"type": "list", "elements": "str", "default": []},
        "python": {"type": "str", "default": "system"},
        "limits": {
            "type": "dict",
            "options": {"memory": {"type": "str", "default": "1g"}, "tasks": {"type": "int", "default": 100}},
        },
        "environment": {"type": "dict", "default": {}},
        "secrets": {"type": "dict", "default": {}, "no_log": True},
    }
}
GOOD = """\
slipway_apps:
  shop:
    domains: [shop.example.com]
    source: {path: source}
    entrypoint: shop.main:app
"""
Resolve = Callable[..., dict[str, list[dict[str, Any]]]]


def load(text: str, directory: Path) -> dict[str, Any]:
    """The variables of a file, as Ansible loads them: trusted to hold templates, and knowing their origin."""
    (directory / "apps.yml").write_text(text)
    variables: dict[str, Any] = DataLoader().load_from_file(str(directory / "apps.yml"), trusted_as_template=True)
    return variables


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Resolve the text of a file of variables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "uv.lock").touch()

    def run(text: str, specs: Mapping[str, Any] = SPECS) -> dict[str, list[dict[str, Any]]]:
        variables = load(textwrap.dedent(text), tmp_path)
        templar = Templar(DataLoader(), variables)
        return resolve(specs, variables, Context(templar.template, origin, written, tmp_path))

    return run


@pytest.fixture
def mistakes(resolved: Resolve) -> Callable[..., list[str]]:
    """The same for variables that must be refused."""

    def run(text: str, specs: Mapping[str, Any] = SPECS) -> list[str]:
        with pytest.raises(Mistakes) as refused:
            resolved(text, specs)
        return refused.value.messages

    return run


def test_layers_are_merged_key_by_key_lowest_first(resolved: Resolve) -> None:
    apps = resolved(
        """
        slipway_app_defaults:
          python: "3.11"
          environment: {A: defaults, B: defaults, C: defaults, D: defaults}
          limits: {memory: 2g}
        slipway_apps:
          shop:
            python: "3.12"
            environment: {B: app, C: app, D: app}
          blog:
        # In alphabetical order, not in the order of the file.
        slipway_app_overrides_2: {shop: {environment: {D: overrides_2}}}
        slipway_app_overrides_10: {shop: {python: "3.13", environment: {C: overrides_10, D: overrides_10}}}
        slipway_app_overrides: {shop: {limits: {tasks: 7}, environment: {C: overrides, E: overrides}}}
        """,
        SMALL,
    )["app"]
    shop, blog = apps
    assert shop["python"] == "3.13"
    assert shop["environment"] == {
        "A": "defaults",
        "B": "app",
        "C": "overrides_10",
        "D": "overrides_2",
        "E": "overrides",
    }
    assert shop["limits"] == {"memory": "2g", "tasks": 7}
    assert blog["python"] == "3.11"
    assert blog["environment"] == dict.fromkeys("ABCD", "defaults")
    assert blog["limits"] == {"memory": "2g", "tasks": 100}


def test_defaults_of_the_specs_lie_beneath_nested_ones_too(resolved: Resolve) -> None:
    (app,) = resolved("slipway_apps: {shop: {limits: {tasks: '5'}}}", SMALL)["app"]
    assert app["python"] == "system"
    assert app["limits"] == {"memory": "1g", "tasks": 5}


def test_templates_are_rendered_in_every_layer(resolved: Resolve) -> None:
    (app,) = resolved(
        """
        company: example.com
        currency: {SHOP_CURRENCY: EUR}
        shop: {environment: "{{ currency }}", domains: ["shop.{{ company }}"]}
        slipway_app_defaults: {python: "3.{{ 10 + 3 }}"}
        slipway_apps: {shop: "{{ shop }}"}
        slipway_app_overrides_all: "{{ {'shop': {'limits': {'memory': '4g'}}} }}"
        """,
        SMALL,
    )["app"]
    assert app["domains"] == ["shop.example.com"]
    assert app["environment"] == {"SHOP_CURRENCY": "EUR"}
    assert app["python"] == "3.13"
    assert app["limits"]["memory"] == "4g"


def test_a_template_that_stands_for_a_mapping_is_merged_key_by_key(resolved: Resolve) -> None:
    (app,) = resolved(
        """
        common: {A: common, B: common}
        more: {B: more, C: more}
        slipway_app_defaults: {environment: "{{ common }}"}
        slipway_apps: {shop: {environment: {B: app, D: app}}}
        slipway_app_overrides: {shop: {environment: "{{ more }}"}}
        """,
        SMALL,
    )["app"]
    assert app["environment"] == {"A": "common", "B": "more", "C": "more", "D": "app"}


def test_each_role_sees_the_keys_of_its_own_spec_and_no_more(resolved: Resolve) -> None:
    views = resolved(GOOD + "    websocket_paths: [/ws]\n    secrets: {key: x}\n    workers: 4\n")
    assert set(views) == set(VIEWS)
    for role, (app,) in views.items():
        options = {key: option for key, option in SPECS[role].items() if "default" in option or option.get("required")}
        assert set(options) <= set(app) <= set(SPECS[role])
        assert app["name"] == "shop"
        assert app["domains"] == ["shop.example.com"]
        for key in set(options) - {"name", "domains", "source", "entrypoint", "websocket_paths", "secrets", "workers"}:
            assert app[key] == options[key]["default"], key
    assert views["nginx"][0]["websocket_paths"] == ["/ws"]
    assert views["app"][0]["workers"] == "4"
    assert "secrets" not in views["nginx"][0] and "workers" not in views["nginx"][0]


def test_a_path_of_the_controller_starts_from_the_inventory(resolved: Resolve, tmp_path: Path) -> None:
    (app,) = resolved(GOOD)["app"]
    assert app["source"]["path"] == str(tmp_path / "source")


def test_no_apps_are_no_mistake(resolved: Resolve) -> None:
    assert resolved("other: 1") == {role: [] for role in VIEWS}


SECRETS = (
    GOOD
    + """\
    secrets: {session_key: canary-app, database_url: "{{ vault_url }}", other: canary-low}
    secret_environment: {DATABASE_URL: "{{ vault_url }}\\ntwo", MODE: canary}
vault_url: canary-vault
vault_group: {other: "{{ 'canary' }}-{{ 'group' }}"}
slipway_app_defaults: {secrets: {mail: "{{ vault_url }}-mail"}}
slipway_app_overrides_group: {shop: {secrets: "{{ vault_group }}"}}
slipway_app_overrides_host: "{{ {'shop': {'secrets': {'session_key': 'canary-host'}}} }}"
"""
)


def test_secrets_are_references_to_their_values_and_never_values(resolved: Resolve) -> None:
    views = resolved(SECRETS)
    (app,) = views["app"]
    assert "canary" not in json.dumps(views)
    assert app["secrets"] == {
        "mail": "slipway_app_defaults.secrets.mail",
        "database_url": "slipway_apps.shop.secrets.database_url",
        "other": "slipway_app_overrides_group.shop.secrets.other",
        "session_key": "slipway_app_overrides_host.shop.secrets.session_key",
    }


def action_with(variables: Mapping[str, Any]) -> ActionModule:
    nowhere: Any = None  # completing an app needs no host
    return ActionModule(Task(), nowhere, nowhere, DataLoader(), Templar(DataLoader(), variables), nowhere)


def test_the_references_lead_to_the_value_of_the_highest_layer(resolved: Resolve, tmp_path: Path) -> None:
    (app,) = resolved(SECRETS)["app"]
    variables = load(SECRETS, tmp_path)
    assert secrets_of(action_with(variables), app, variables) == {
        "secrets": {
            "mail": "canary-vault-mail",
            "database_url": "canary-vault",
            "other": "canary-group",
            "session_key": "canary-host",
        },
        "secret_environment": {"DATABASE_URL": "canary-vault\ntwo", "MODE": "canary"},
    }
    assert "canary" not in json.dumps(complete(action_with(variables), app, [], variables))


def test_a_reference_leads_to_a_secret_whose_name_is_very_long(resolved: Resolve, tmp_path: Path) -> None:
    name = "A" * 250
    text = f"{GOOD}    secret_environment: {{{name}: canary}}\n"
    (app,) = resolved(text)["app"]
    variables = load(text, tmp_path)
    assert secrets_of(action_with(variables), app, variables)["secret_environment"] == {name: "canary"}


PRIVATE = """\
slipway_app_defaults: {index: {url: "https://pypi.example.com/simple", username: deploy, password: "{{ vault }}-low"}}
slipway_apps:
  shop:
    domains: [shop.example.com]
    source: "{{ shop_source }}"
    entrypoint: shop.main:app
slipway_app_overrides_host: {shop: {index: {password: "{{ vault }}-host"}}}
shop_source: {git: "https://git.example.com/shop.git", token: "{{ vault }}-token"}
vault: canary
"""


def test_credentials_are_references_to_their_values_and_never_values(resolved: Resolve, tmp_path: Path) -> None:
    (app,) = resolved(PRIVATE)["app"]
    assert app["source"]["token"] == "slipway_apps.shop.source.token"
    assert app["source"]["username"] == "x-access-token"
    assert app["index"]["password"] == "slipway_app_overrides_host.shop.index.password"
    variables = load(PRIVATE, tmp_path)
    action = action_with(variables)
    names = ["source.key", "source.token", "index.password"]
    values = {"source.token": "canary-token", "index.password": "canary-host"}
    assert credentials_of(action, app, variables, *names) == values
    assert credentials_of(action, app, variables, "source.key") == {}
    # Not even the references reach the host.
    wanted = complete(action, app, [], variables)
    assert "canary" not in json.dumps([app, wanted]) and "slipway_app" not in json.dumps(wanted)
    assert not ArgumentSpecValidator(APP_OPTIONS).validate(wanted).error_messages


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("{path: source}", {"path"}),
        ("{git: 'git@git.example.com:shop.git', key: KEY}", {"git", "key", "version"}),
        ("'{{ other }}'", {"path"}),
        ("{version: v2}", {"git", "token", "username", "version"}),
    ],
)
def test_a_layer_with_another_kind_of_source_takes_the_lower_one_away(
    resolved: Resolve, layer: str, source: set[str]
) -> None:
    key = json.dumps("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----")
    lower = "{git: 'https://git.example.com/shop.git', version: v1, token: t, username: u}"
    higher = f"slipway_app_overrides: {{shop: {{source: {layer.replace('KEY', key)}}}}}\n"
    (app,) = resolved(f"{GOOD.replace('{path: source}', lower)}other: {{path: source}}\n{higher}")["app"]
    given = {name for name, value in app["source"].items() if value is not None and value != "x-access-token"}
    assert given == source


def test_a_layer_with_git_takes_a_path_away(resolved: Resolve) -> None:
    (app,) = resolved(GOOD + "slipway_app_overrides: {shop: {source: {git: 'https://git.example.com/shop.git'}}}\n")[
        "app"
    ]
    assert app["source"]["path"] is None


def test_git_without_a_version_is_head(resolved: Resolve) -> None:
    (app,) = resolved(GOOD.replace("{path: source}", "{git: 'https://git.example.com/shop.git'}"))["app"]
    wanted = ArgumentSpecValidator(APP_OPTIONS).validate(complete(action_with({}), app, [], {}))
    assert not wanted.error_messages
    assert wanted.validated_parameters["source"]["version"] == "HEAD"


def test_one_host_of_the_play_migrates_or_each(resolved: Resolve) -> None:
    def migrating(addition: str) -> list[str]:
        (app,) = resolved(GOOD + addition)["app"]
        apps = {"web1": {}, "web2": {"slipway_apps": {"shop": {}}}, "web3": {"slipway_apps": {"shop": {}}}}
        variables = {"ansible_play_hosts_all": list(apps), "hostvars": apps}
        return [host for host in apps if migrates(app, {**variables, "inventory_hostname": host})]

    assert migrating("") == []
    assert migrating("    migrate: alembic upgrade head\n") == ["web2"]
    assert migrating("    migrate: alembic upgrade head\n    migrate_on: each\n") == ["web1", "web2", "web3"]


# What stands in addition to GOOD, and parts of the one message that it must bring.
BAD: dict[str, tuple[str, list[str]]] = {
    "an unknown key": (
        "    worker: 4\n",
        ["slipway_apps.shop.worker", "this key is not known; did you mean workers?", "(apps.yml:6)"],
    ),
    "an unknown key like no other": (
        "    zzzz: 4\n",
        ["slipway_apps.shop.zzzz", "known are: after_rollback, ", ", workers", "(apps.yml:6)"],
    ),
    "an unknown key further in": (
        "slipway_app_overrides: {shop: {source: {pth: source}}}\n",
        ["slipway_app_overrides.shop.source.pth", "did you mean path?", "(apps.yml:6)"],
    ),
    "an unknown app in an override": (
        "slipway_app_overrides_eu: {shpo: {workers: 4}}\n",
        ['slipway_app_overrides_eu names the app "shpo"', "it has: shop", "(apps.yml:6)"],
    ),
    "a number for a list": (
        "    websocket_paths: 5\n",
        ["slipway_apps.shop.websocket_paths is 5: a list is needed", "(apps.yml:6)"],
    ),
    "a text for a list": (
        "slipway_app_defaults: {websocket_paths: /ws}\n",
        ['slipway_app_defaults.websocket_paths is "/ws": a list is needed', "(apps.yml:6)"],
    ),
    "a text for a number": (
        "    ready_seconds: soon\n",
        ['slipway_apps.shop.ready_seconds is "soon": a whole number is needed', "(apps.yml:6)"],
    ),
    "a boolean for a text": (
        "    migrate: yes\n",
        ["slipway_apps.shop.migrate is true: YAML reads this as a boolean; put it in quotes", "(apps.yml:6)"],
    ),
    "a list for a mapping": (
        "    environment: [A]\n",
        ['slipway_apps.shop.environment is ["A"]: a mapping is needed', "(apps.yml:6)"],
    ),
    "a mapping in a list": (
        "    websocket_paths: [/ws, {a: b}]\n",
        ['slipway_apps.shop.websocket_paths[1] is {"a": "b"}: a text is needed', "(apps.yml:6)"],
    ),
    "a list for a text further in": (
        "slipway_app_overrides: {shop: {source: {path: [source]}}}\n",
        ['slipway_app_overrides.shop.source.path is ["source"]: a text is needed', "(apps.yml:6)"],
    ),
    "another choice": (
        "    migrate_on: all\n",
        ["slipway_apps.shop", "migrate_on", "one, each", "all"],
    ),
    "a domain with a scheme": (
        "slipway_app_overrides: {shop: {domains: [shop.example.com, 'https://www.example.com']}}\n",
        [
            'slipway_app_overrides.shop.domains[1] is "https://www.example.com"',
            "a domain has no scheme; write www.example.com",
            "(apps.yml:6)",
        ],
    ),
    "a domain with a space": (
        "slipway_app_overrides: {shop: {domains: ['shop example.com']}}\n",
        ['slipway_app_overrides.shop.domains[0] is "shop example.com"', "joined by dots", "(apps.yml:6)"],
    ),
    "no domain": (
        "slipway_app_overrides: {shop: {domains: []}}\n",
        ["slipway_app_overrides.shop.domains is []: at least one domain is needed", "(apps.yml:6)"],
    ),
    "an app name that is not allowed": (
        "  my_shop: {}\n",
        ['slipway_apps has the app "my_shop"', "1 to 23 lower-case letters, digits and dashes", "(apps.yml:6)"],
    ),
    "an app name that is a number": ("  7: {}\n", ["slipway_apps has the app 7", "begins with a letter"]),
    "an app with a name of Slipway's": (
        "  acme: {}\n",
        ['slipway_apps has the app "acme": this name is taken by Slipway itself; choose another', "(apps.yml:6)"],
    ),
    "an app that is no mapping": (
        "slipway_app_overrides: {shop: [workers]}\n",
        ['slipway_app_overrides.shop is ["workers"]: a mapping is needed', "(apps.yml:6)"],
    ),
    "a malformed entry point": (
        "slipway_app_overrides: {shop: {entrypoint: shop/main.py}}\n",
        [
            'slipway_app_overrides.shop.entrypoint is "shop/main.py"',
            "an entry point is module:attribute, such as shop.main:app",
            "(apps.yml:6)",
        ],
    ),
    "a source that is not there": (
        "slipway_app_overrides: {shop: {source: {path: ../nowhere}}}\n",
        [
            'slipway_app_overrides.shop.source.path is "../nowhere": there is no directory /',
            "/nowhere on the controller",
        ],
    ),
    "a source of both kinds": (
        "slipway_app_overrides: {shop: {source: {path: source, git: 'https://git.example.com/shop.git'}}}\n",
        ["slipway_app_overrides.shop.source is {", "exactly one of path and git is needed"],
    ),
    "a source that is no mapping": (
        "slipway_app_overrides: {shop: {source: hunter2}}\n",
        ["slipway_app_overrides.shop.source: a mapping is needed", "(apps.yml:6)"],
    ),
    "a key that is none": (
        "slipway_app_overrides: {shop: {source: {git: 'git@git.example.com:shop.git', key: hunter2}}}\n",
        ["slipway_app_overrides.shop.source.key: an OpenSSH private key is needed", "(apps.yml:6)"],
    ),
    "a token for ssh": (
        "slipway_app_overrides: {shop: {source: {git: 'git@git.example.com:shop.git', token: hunter2}}}\n",
        ["slipway_app_overrides.shop.source is {", "token goes with an https address; ssh takes a key"],
    ),
    "a token with a path": (
        "slipway_app_overrides: {shop: {source: {path: source, token: hunter2}}}\n",
        ["slipway_app_overrides.shop.source is {", "token goes with git; a path is taken as it is"],
    ),
    "a misspelt token": (
        "slipway_app_overrides: {shop: {source: {git: 'git@x:shop.git', tokn: hunter2}}}\n",
        ["slipway_app_overrides.shop.source.tokn: this key is not known; did you mean token?"],
    ),
    "an undefined variable in a token": (
        "slipway_app_overrides: {shop: {source: {git: 'https://x/shop.git', token: 'hunter2{{ vault }}'}}}\n",
        ["slipway_app_overrides.shop.source.token: it cannot be rendered", "'vault' is undefined", "(apps.yml:6)"],
    ),
    "a template in a token that cannot be read": (
        "slipway_app_overrides: {shop: {source: {git: 'https://x/shop.git', token: 'hunter2{% hunter2'}}}\n",
        [
            "slipway_app_overrides.shop.source.token: it cannot be rendered; a text that holds",
            "!unsafe",
            "(apps.yml:6)",
        ],
    ),
    "a login in an address": (
        "slipway_app_overrides: {shop: {source: {git: 'https://me:hunter2@git.example.com/shop.git'}}}\n",
        ["slipway_app_overrides.shop.source.git: the address holds a login", "token and username", "(apps.yml:6)"],
    ),
    "a login in an index's address": (
        "    index: {url: 'https://me:hunter2@pypi.example.com/simple'}\n",
        ["slipway_apps.shop.index.url: the address holds a login", "username and password", "(apps.yml:6)"],
    ),
    "a password without a user": (
        "    index: {url: 'https://pypi.example.com/simple', password: hunter2}\n",
        ["slipway_apps.shop.index is {", "username and password go together", "(apps.yml:6)"],
    ),
    "a password of two lines": (
        '    index: {url: "https://pypi.example.com/simple", username: me, password: "hunter2\\nx"}\n',
        ["slipway_apps.shop.index.password: a single line is needed", "(apps.yml:6)"],
    ),
    "an index that is no mapping": (
        "    index: hunter2\n",
        ["slipway_apps.shop.index: a mapping is needed", "(apps.yml:6)"],
    ),
    "a package that is an option of apt": (
        "    packages: [libpq-dev, --allow-unauthenticated]\n",
        ['slipway_apps.shop.packages[1] is "--allow-unauthenticated"', "such as libpq-dev", "(apps.yml:6)"],
    ),
    "a certificate that is not there": (
        "    certificate: {fullchain: shop.pem, privkey: apps.yml}\n",
        ['slipway_apps.shop.certificate.fullchain is "shop.pem": there is no file /', "(apps.yml:6)"],
    ),
    "half a certificate": (
        "    certificate: {fullchain: apps.yml}\n",
        ["slipway_apps.shop.certificate is {", "takes fullchain and privkey, both", "(apps.yml:6)"],
    ),
    "an environment name with a space": (
        "    environment: {SHOP CURRENCY: EUR}\n",
        [
            'slipway_apps.shop.environment.SHOP CURRENCY is "SHOP CURRENCY"',
            "letters, digits and underscores",
            "apps.yml:6",
        ],
    ),
    "an environment name of Slipway's": (
        "    environment: {SLIPWAY_SLOT: blue}\n",
        ['slipway_apps.shop.environment.SLIPWAY_SLOT is "SLIPWAY_SLOT"', "choose another", "apps.yml:6"],
    ),
    "a value with a line break": (
        '    environment: {MOTD: "one\\ntwo"}\n',
        ['slipway_apps.shop.environment.MOTD is "one\\ntwo"', "a single line", "(apps.yml:6)"],
    ),
    "a command of two lines": (
        "    build: |\n      one\n      two\n",
        ['slipway_apps.shop.build is "one\\ntwo\\n"', "a single line", "(apps.yml:6)"],
    ),
    "a boolean in the environment": (
        "    environment: {DEBUG: no}\n",
        ["slipway_apps.shop.environment.DEBUG is false", "YAML reads this as a boolean; put it in quotes"],
    ),
    "a float in the environment": (
        "    environment: {VERSION: 1.10}\n",
        ["slipway_apps.shop.environment.VERSION is 1.1", "may change its digits; put it in quotes"],
    ),
    "a date in the environment": (
        "    environment: {SINCE: 2026-01-31}\n",
        ['slipway_apps.shop.environment.SINCE is "2026-01-31', "YAML reads this as a date; put it in quotes"],
    ),
    "an octal number": (
        "    environment: {PIN: 0123}\n",
        [
            "slipway_apps.shop.environment.PIN is 83: YAML reads 0123 as 83; "
            "write that, or put it in quotes if it is a text (apps.yml:6)"
        ],
    ),
    "a time of the day": (
        "    environment: {OPENS: 12:30}\n",
        ["slipway_apps.shop.environment.OPENS is 750: YAML reads 12:30 as 750", "(apps.yml:6)"],
    ),
    "a hexadecimal number": (
        "    drain_seconds: 0x10\n",
        ["slipway_apps.shop.drain_seconds is 16: YAML reads 0x10 as 16", "(apps.yml:6)"],
    ),
    "a hexadecimal number of 5000 digits": (
        f"    environment: {{KEY: 0x{'f' * 5000}}}\n",
        ["slipway_apps.shop.environment.KEY is a number of thousands of digits", "(apps.yml:6)"],
    ),
    "a number with an underscore in a list": (
        "slipway_app_overrides: {shop: {packages: [7_0]}}\n",
        ["slipway_app_overrides.shop.packages[0] is 70: YAML reads 7_0 as 70", "(apps.yml:6)"],
    ),
    "a version that is a float": (
        "slipway_app_overrides: {shop: {source: {git: 'https://x/shop.git', version: 1.10}}}\n",
        [
            "slipway_app_overrides.shop.source.version is 1.1: YAML reads this as a number and may change its digits; "
            "put it in quotes"
        ],
    ),
    "a Python that is a float": (
        "    python: 3.10\n",
        ["slipway_apps.shop.python is 3.1: YAML reads this as a number and may change its digits; put it in quotes"],
    ),
    "a date in a list": (
        "    groups: [2026-01-31]\n",
        ['slipway_apps.shop.groups[0] is "2026-01-31": YAML reads this as a date; put it in quotes'],
    ),
    "a number that is a text": (
        "    ready_seconds: 1e3\n",
        ['slipway_apps.shop.ready_seconds is "1e3": a whole number is needed', "(apps.yml:6)"],
    ),
    "a boolean for a name": (
        "    environment: {no: '1'}\n",
        ["slipway_apps.shop.environment.False is false: an environment name is", "(apps.yml:6)"],
    ),
    "nothing for a header's name": (
        "    headers: {~: x}\n",
        ["slipway_apps.shop.headers.None is null: a header's name is letters, digits and dashes"],
    ),
    "a boolean for a directory": (
        "    static: {/a/: yes}\n",
        ["slipway_apps.shop.static./a/ is true: a directory inside the source is needed"],
    ),
    "a name that is no line": (
        '    environment: {"A\\nB": x}\n',
        ['slipway_apps.shop.environment."A\\nB" is "A\\nB": an environment name is'],
    ),
    "a path with a NUL byte": (
        'slipway_app_overrides: {shop: {source: {path: "a\\0b"}}}\n',
        ['slipway_app_overrides.shop.source.path is "a\\u0000b": it holds a NUL byte, which no text has'],
    ),
    "a start that takes for ever": (
        "    ready_seconds: 1000000000000\n",
        ["slipway_apps.shop.ready_seconds is 1000000000000: a number from 1 to 3600 is needed", "(apps.yml:6)"],
    ),
    "a drain of no time at all": (
        "    drain_seconds: -1\n",
        ["slipway_apps.shop.drain_seconds is -1: a number from 0 to 86400 is needed", "(apps.yml:6)"],
    ),
    "a domain of an address": (
        "slipway_app_overrides: {shop: {domains: [203.0.113.7]}}\n",
        ['slipway_app_overrides.shop.domains[0] is "203.0.113.7": a domain does not end in a number', "(apps.yml:6)"],
    ),
    "a domain in Unicode": (
        "slipway_app_overrides: {shop: {domains: [bücher.example]}}\n",
        ['slipway_app_overrides.shop.domains[0] is "bücher.example"', "write xn--bcher-kva.example (apps.yml:6)"],
    ),
    "an environment that is too large": (
        "    environment: {" + ", ".join(f"A{number}: {'x' * 99_000}" for number in range(6)) + "}\n",
        ["slipway_apps.shop.environment is {", "all together may have 500,000 bytes, and these have", "(apps.yml:6)"],
    ),
    "secrets that are too large": (
        "    secrets: {" + ", ".join(f"a{number}: {'hunter2' * 30_000}" for number in range(5)) + "}\n",
        [
            "slipway_apps.shop.secrets: all together may have 1,000,000 bytes, and these have 1,050,000",
            "(apps.yml:6)",
        ],
    ),
    "a name of a DNS plugin's that is none": (
        "    certificate: {issuer: letsencrypt, dns: {plugin: ovh, credentials: {API-KEY: hunter2}}}\n",
        ["slipway_apps.shop.certificate.dns.credentials.API-KEY: a name is lower-case letters", "(apps.yml:6)"],
    ),
    "nothing in the environment": (
        "    environment: {DEBUG: }\n",
        ["slipway_apps.shop.environment.DEBUG is null", "YAML reads this as nothing; put it in quotes"],
    ),
    "an empty secret": (
        "    secrets: {database_url: ''}\n",
        ["slipway_apps.shop.secrets.database_url", "a secret is a text that is not empty", "(apps.yml:6)"],
    ),
    "a secret's name with a dash": (
        "    secrets: {database-url: hunter2}\n",
        ["slipway_apps.shop.secrets.database-url", "letters, digits and underscores", "(apps.yml:6)"],
    ),
    "a secret of the environment with a name of Slipway's": (
        "    secret_environment: {HOME: hunter2}\n",
        ["slipway_apps.shop.secret_environment.HOME: this name is set by Slipway or systemd", "(apps.yml:6)"],
    ),
    "a secret of the environment that systemd would log": (
        '    secret_environment: {KEY: "hunter2\\uFFFE"}\n',
        ["slipway_apps.shop.secret_environment.KEY: an environment holds whole characters", "(apps.yml:6)"],
    ),
    "a name twice in the environment": (
        "    environment: {KEY: a}\n    secret_environment: {KEY: hunter2}\n",
        ['slipway_apps.shop.environment has "KEY", as secret_environment has: choose one'],
    ),
    "a credential's name that the plugin cannot have": (
        "    certificate: {issuer: letsencrypt, dns: {plugin: ovh, credentials: {API: hunter2}}}\n",
        ["slipway_apps.shop.certificate.dns.credentials.API: a name is lower-case letters", "(apps.yml:6)"],
    ),
    "a switch of the sandbox that there is not": (
        "    sandbox: {jti: true}\n",
        ["slipway_apps.shop.sandbox.jti: this key is not known; did you mean jit?", "(apps.yml:6)"],
    ),
    "a switch that is not switched": (
        "    sandbox: {tools: [ffmpeg]}\n",
        ['slipway_apps.shop.sandbox.tools is ["ffmpeg"]: true or false is needed', "(apps.yml:6)"],
    ),
    "another network": ("    sandbox: {network: none}\n", ["slipway_apps.shop", "network", "open, local", "none"]),
    "a system's directory to write to": (
        "    sandbox: {writable: [/srv/media, /etc/shop]}\n",
        [
            'slipway_apps.shop.sandbox.writable[1] is "/etc/shop"',
            "choose a directory such as /srv/media",
            "(apps.yml:6)",
        ],
    ),
    "memory without its unit": (
        "    resources: {memory: 512}\n",
        ["slipway_apps.shop.resources.memory is 512: a size of memory is a number with M or G", "(apps.yml:6)"],
    ),
    "a weight that is too much": (
        "    resources: {cpu_weight: 10001}\n",
        ["slipway_apps.shop.resources.cpu_weight is 10001: a number from 1 to 10000", "(apps.yml:6)"],
    ),
    "secrets that are no mapping": (
        "    secrets: hunter2\n",
        ["slipway_apps.shop.secrets", "a mapping of names and values is needed", "(apps.yml:6)"],
    ),
    "an undefined variable": (
        "    environment: {REGION: '{{ region }}'}\n",
        ["slipway_apps.shop.environment is", "{{ region }}", "'region' is undefined", "(apps.yml:6)"],
    ),
    "an undefined variable in a secret": (
        "    secrets: {key: '{{ vault_key }}'}\n",
        ["slipway_apps.shop.secrets.key", "'vault_key' is undefined", "(apps.yml:6)"],
    ),
    "an undefined variable in place of a mapping": (
        "    secrets: '{{ vault_shop }}'\n",
        ['slipway_apps.shop.secrets is "{{ vault_shop }}"', "'vault_shop' is undefined", "(apps.yml:6)"],
    ),
    "an undefined variable in place of a layer": (
        "slipway_app_overrides_eu: '{{ region }}'\n",
        ["slipway_app_overrides_eu is", "{{ region }}", "'region' is undefined", "(apps.yml:6)"],
    ),
    "a rate without its time": (
        "    limits: {requests: 20}\n",
        ["slipway_apps.shop.limits.requests is 20: a rate is a number with r/s or r/m", "(apps.yml:6)"],
    ),
    "a rate of a path": (
        "    limits: {paths: {/login: 5/m}}\n",
        ['slipway_apps.shop.limits.paths./login is "5/m"', "such as 5r/m burst=10", "(apps.yml:6)"],
    ),
    "an unknown limit": (
        "    limits: {connection: 5}\n",
        ["slipway_apps.shop.limits.connection: this key is not known; did you mean connections?", "(apps.yml:6)"],
    ),
    "a proxy that is everybody": (
        "    trusted_proxies: [10.0.0.0/8, 0.0.0.0/0]\n",
        ['slipway_apps.shop.trusted_proxies[1] is "0.0.0.0/0": this is everybody', "(apps.yml:6)"],
    ),
    "a network that is none": (
        "    maintenance_allow: [office.example.com]\n",
        ['slipway_apps.shop.maintenance_allow[0] is "office.example.com"', "such as 10.0.0.0/8", "(apps.yml:6)"],
    ),
    "a path that is static and a WebSocket": (
        "    websocket_paths: [/live]\n    static: {/live/: live}\n",
        ['slipway_apps.shop.static has "/live/"', "either static or a WebSocket"],
    ),
    "a WebSocket that stands twice": (
        "    websocket_paths: [/ws, /ws/]\n",
        ['slipway_apps.shop.websocket_paths has "/ws" twice: once is enough'],
    ),
    "a private path that stands twice": (
        "    private_paths: [/metrics, /, /metrics]\n",
        ['slipway_apps.shop.private_paths has "/metrics" twice: once is enough'],
    ),
    "a limit that stands twice": (
        "    limits: {paths: {/login: 5r/m, /login/: 9r/m}}\n",
        ['slipway_apps.shop.limits.paths has "/login" twice: once is enough'],
    ),
    "a redirect of what is static": (
        "    static: {/old/static/: static}\n    redirects: {/old/: /new/}\n",
        ['slipway_apps.shop.redirects has "/old/", so that nothing reaches "/old/static/" of static'],
    ),
    "a server that there is not": (
        "    server: daphne\n",
        ["slipway_apps.shop: value of server must be one of: gunicorn, uvicorn, hypercorn, gunicorn-wsgi, waitress"],
    ),
    "what a server cannot do": (
        "    server: waitress\n    preload: true\n",
        ["slipway_apps.shop.preload is true: server waitress cannot do that; leave it out"],
    ),
    "threads of an event loop": (
        "    threads: 4\n",
        ['slipway_apps.shop.threads is "4": server gunicorn cannot do that; leave it out, or choose another server'],
    ),
    "a redirect of a WebSocket": (
        "    websocket_paths: [/ws]\n    redirects: {/ws: /live, /wsx: /live}\n",
        ['slipway_apps.shop.redirects has "/ws", so that nothing reaches "/ws" of websocket_paths'],
    ),
}


@pytest.mark.parametrize(("addition", "expected"), BAD.values(), ids=BAD)
def test_refuses_with_variable_value_and_remedy(
    mistakes: Callable[..., list[str]], addition: str, expected: list[str]
) -> None:
    messages = mistakes(GOOD + addition)
    assert len(messages) == 1, messages
    for part in expected:
        assert part in messages[0]
    assert "hunter2" not in messages[0]


def test_numbers_are_handed_on_as_they_were_written(resolved: Resolve) -> None:
    (app,) = resolved(
        GOOD
        + """\
    environment: {PORT: 8080, OFFSET: -1, EXPONENT: 1e3, OCTAL: 0o17, NINE: 089, RENDERED: "{{ 0x10 }}", QUOTED: "0123"}
    drain_seconds: "10"
"""
    )["app"]
    assert app["environment"] == {
        "PORT": 8080,
        "OFFSET": -1,
        "EXPONENT": "1e3",
        "OCTAL": "0o17",
        "NINE": "089",
        "RENDERED": 16,
        "QUOTED": "0123",
    }
    assert app["drain_seconds"] == 10


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"environment": {"A": "\ud800"}}, 'environment.A is "\\ud800": it holds one half of a surrogate pair'),
        ({"environment": {"\udc80": "a"}}, 'environment."\\udc80" is "\\udc80": an environment name is'),
        ({"source": {"path": "\ud800"}}, 'source.path is "\\ud800": it holds one half of a surrogate pair'),
        ({"nginx": {"http": "\udfff;"}}, 'nginx.http is "\\udfff;": it holds one half of a surrogate pair'),
        ({"secrets": {"key": "hunter2\ud800"}}, "secrets.key: it holds one half of a surrogate pair"),
    ],
)
def test_refuses_what_is_no_text(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    """Which JSON can bring, on the command line for example."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "uv.lock").touch()
    app = {"domains": ["shop.example.com"], "source": {"path": "source"}, "entrypoint": "shop.main:app", **values}
    variables = json.loads(json.dumps({"slipway_apps": {"shop": app}}))
    templar = Templar(DataLoader(), variables)
    with pytest.raises(Mistakes) as refused:
        resolve(SPECS, variables, Context(templar.template, origin, written, tmp_path))
    (message,) = refused.value.messages
    assert expected in message and "hunter2" not in message
    message.encode()


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What is wrong with the variables of a text, beside its apps."""
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> list[str]:
        variables = load(text, tmp_path)
        templar = Templar(DataLoader(), variables)
        return check(VARIABLES, variables, Context(templar.template, origin, written, tmp_path))

    return run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "slipway_public_port: 65536",
            ["slipway_public_port is 65536: a number from 1 to 65535 is needed (apps.yml:1)"],
        ),
        ("slipway_public_port: https", ['slipway_public_port is "https": a whole number is needed (apps.yml:1)']),
        ("slipway_public_port: 0x20fb", ["slipway_public_port is 8443: YAML reads 0x20fb as 8443; write that"]),
        ("slipway_tls_profile: old", ["slipway_tls_profile", "intermediate, modern", "old"]),
        ("slipway_serial: 0", ["slipway_serial is 0: a number of hosts from 1"]),
        ("host_journal_max: 1 GB", ['host_journal_max is "1 GB": a size is a number with K, M, G or T']),
        ("host_ca_files: /ca.crt", ['host_ca_files is "/ca.crt": a list is needed']),
        ("host_ca_files: [/a/ca.crt, /b/ca.crt]", ["host_ca_files is [", "more than one is called ca.crt"]),
        ("host_ca_files: [/a/ca.pem]", ['host_ca_files[0] is "/a/ca.pem": a file whose name ends with .crt']),
        ("nginx_ipv6: 'false'", ['nginx_ipv6 is "false": true or false is needed', """-e '{"nginx_ipv6": true}'"""]),
        ("nginx_worker_connections: 10", ["nginx_worker_connections is 10: a number from 64 to 262144"]),
        ("python_mirror: 1.5", ["python_mirror is 1.5: YAML reads this as a number"]),
        ("python_mirror: '{{ nowhere }}'", ["python_mirror is", "it cannot be rendered", "'nowhere' is undefined"]),
        ("app_front_user: No One", ['app_front_user is "No One": a user\'s name is']),
    ],
)
def test_refuses_what_roles_would_refuse_too_late(
    beside: Callable[[str], list[str]], text: str, expected: list[str]
) -> None:
    (message,) = beside(text)
    for part in expected:
        assert part in message


def test_variables_beside_the_apps_that_are_good(beside: Callable[[str], list[str]]) -> None:
    text = """
        other: 1
        slipway_public_port: "8443"
        slipway_tls_profile: modern
        slipway_serial: [1, 50%]
        host_ca_files: "{{ ['/a/ca.crt'] }}"
        nginx_ipv6: no
    """
    assert beside(textwrap.dedent(text)) == []


@pytest.mark.parametrize("key", ["entrypoint", "domains", "source"])
def test_refuses_an_app_without_a_needed_key(mistakes: Callable[..., list[str]], key: str) -> None:
    (message,) = mistakes("".join(line for line in GOOD.splitlines(keepends=True) if f" {key}:" not in line))
    assert message.startswith(f"slipway_apps.shop.{key}: this key is needed. ")
    assert "or example C(" in message and message.endswith("(apps.yml:3)")


def test_refuses_two_apps_with_one_domain(mistakes: Callable[..., list[str]]) -> None:
    messages = mistakes(
        GOOD
        + """\
  blog:
    domains: [blog.example.com, shop.example.com]
    source: {path: source}
    entrypoint: blog:app
"""
    )
    assert messages == [
        'slipway_apps.blog.domains has "shop.example.com", as slipway_apps.shop has: a domain belongs to one app'
    ]


def test_refuses_a_domain_that_stands_twice(mistakes: Callable[..., list[str]]) -> None:
    (message,) = mistakes(GOOD.replace("[shop.example.com]", "[shop.example.com, shop.example.com]"))
    assert message == 'slipway_apps.shop.domains has "shop.example.com" twice: once is enough'


@pytest.mark.parametrize(
    ("lock", "addition", "expected"),
    [
        ("requirements.in", "", "neither uv.lock nor requirements.txt"),
        ("pyproject.toml", "", "a pyproject.toml and no lock"),
        ("requirements.txt", "", "requirements.txt has no hashes"),
        ("requirements.txt", "    unlocked: true\n    extras: [fast]\n", "extras and groups are chosen from uv.lock"),
    ],
)
def test_refuses_a_source_that_no_host_could_install(
    mistakes: Callable[..., list[str]], tmp_path: Path, lock: str, addition: str, expected: str
) -> None:
    (tmp_path / "source" / "uv.lock").rename(tmp_path / "source" / lock)
    (message,) = mistakes(GOOD + addition)
    assert message.startswith('slipway_apps.shop.source.path is "source": ')
    assert expected in message and "apps.yml:" in message


def test_a_source_without_a_lock_will_do_where_that_is_said(resolved: Resolve, tmp_path: Path) -> None:
    (tmp_path / "source" / "uv.lock").rename(tmp_path / "source" / "pyproject.toml")
    assert resolved(GOOD + "    unlocked: true\n")


def test_all_mistakes_come_at_once(mistakes: Callable[..., list[str]]) -> None:
    messages = mistakes(
        """
        slipway_apps:
          shop:
            domains: [https://shop.example.com, "*.example.com", shop.example.com]
            source: {path: nowhere}
            entrypoint: shop.main:app
            environment: {A B: "1", C: true, D: 1.5}
            secrets: {key: ""}
          blog: {domains: 5, wrkers: 4}
          Wiki: {}
        slipway_app_overrides: {forum: {}}
        """
    )
    for expected in (
        'app "Wiki"',
        'app "forum"',
        "slipway_apps.shop.secrets.key",
        "slipway_apps.blog.domains is 5",
        "slipway_apps.blog.wrkers",
        "slipway_apps.blog.entrypoint",
        "slipway_apps.blog.source",
    ):
        assert len([message for message in messages if expected in message]) == 1, expected


def test_all_values_of_an_app_are_looked_at(mistakes: Callable[..., list[str]]) -> None:
    messages = mistakes(GOOD + "    environment: {A B: '1', C: true, D: 1.5}\n    workers: 0\n    ready_path: ready\n")
    assert len(messages) == 5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an inventory, with what its variables say of its hosts."""
    directory = tmp_path_factory.mktemp("inventory")
    (directory / "source").mkdir()
    (directory / "source" / "uv.lock").touch()
    for path, text in {
        "group_vars/all.yml": GOOD + "    secrets: {key: '{{ vault_key }}'}\nvault_key: canary\n",
        "host_vars/jammy.yml": 'slipway_app_overrides_host: {shop: {python: "3.12"}}\n',
        "host_vars/fedora.yml": "slipway_app_overrides_host: {shop: {workers: 0}}\n",
        "host_vars/typo.yml": "slipway_app_overrides_host:\n  shop:\n    wrkers: 4\n",
        "host_vars/private.yml": """\
slipway_app_overrides_host:
  shop:
    packages: [libpq-dev, ffmpeg]
    source: {git: "git@git.example.com:shop.git"}
""",
        "host_vars/lines.yml": """\
slipway_app_overrides_host:
  shop:
    domains: [shop.example.com,
              "https://www.example.com"]
    environment:
      GREETING: hello
      DEBUG: yes
""",
    }.items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(text)
    return directory


@pytest.fixture(scope="module")
def results(playbook: Callable[..., Any], base: Path) -> dict[str, dict[str, Any]]:
    """What the real action gave for each host, in one real run."""
    versions = {"good": "Debian 13.1", "jammy": "Ubuntu 22.04", "old": "Ubuntu 22.04", "fedora": "Fedora 43"}
    versions |= {"typo": "Debian 12.11", "lines": "Debian 12.11", "private": "Debian 13.1"}
    hosts = {host: dict(zip(["name", "version"], text.split(), strict=True)) for host, text in versions.items()}
    facts = {"distribution": "{{ name }}", "distribution_version": "{{ version | string }}", "cacheable": True}
    tasks: list[dict[str, Any]] = [{"ansible.builtin.set_fact": facts}, {"slipway.asgi.resolve_apps": {}}]
    return {host: entries[-1] for host, entries in playbook(base, tasks, hosts).items()}


def test_the_action_gives_each_role_its_view(results: dict[str, Any], base: Path) -> None:
    good = results["good"]
    assert good["changed"] is False
    assert set(good["views"]) == set(VIEWS)
    (app,) = good["views"]["app"]
    assert app["source"]["path"] == str(base / "source")
    assert app["secrets"] == {"key": "slipway_apps.shop.secrets.key"}
    assert "canary" not in json.dumps(results)


def test_the_action_names_the_versions_of_python_that_uv_has_to_install(results: dict[str, Any]) -> None:
    assert results["good"]["python_versions"] == []
    assert results["jammy"]["python_versions"] == ["3.12"]


def test_the_action_names_the_packages_that_the_apps_need(results: dict[str, Any]) -> None:
    assert results["good"]["packages"] == []
    assert results["private"]["packages"] == ["ffmpeg", "libpq-dev", "openssh-client"]


def test_the_action_refuses_a_python_that_is_too_old(results: dict[str, Any]) -> None:
    assert results["old"]["failed"]
    assert (
        'slipway_apps.shop.python is "system", which is Python 3.10 here: 3.11 or newer is needed; set python: "3.13"'
    ) in results["old"]["msg"]


def test_the_action_refuses_an_unsupported_distribution_with_all_other_mistakes(results: dict[str, Any]) -> None:
    assert results["fedora"]["failed"]
    message = results["fedora"]["msg"]
    assert "The variables of fedora have 2 mistakes; nothing was changed." in message
    assert "runs Fedora 43: Slipway supports Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04" in message
    assert "slipway_app_overrides_host.shop.workers is 0" in message


def test_the_action_asks_the_host_for_its_distribution(playbook: Callable[..., Any], base: Path) -> None:
    said = platform.freedesktop_os_release()
    facts = playbook(base, [{"slipway.asgi.resolve_apps": {}}], {"good": {}})["good"][-1]["ansible_facts"]
    assert facts["distribution"] == said["NAME"].split()[0]
    assert facts["distribution_release"] == said["VERSION_CODENAME"]
    assert facts["distribution_version"] == said["VERSION_ID"]


def test_the_action_names_file_and_line(results: dict[str, Any]) -> None:
    assert results["typo"]["failed"]
    assert "The variables of typo have a mistake; nothing was changed." in results["typo"]["msg"]
    assert (
        "slipway_app_overrides_host.shop.wrkers: this key is not known; did you mean workers? (host_vars/typo.yml:3)"
    ) in results["typo"]["msg"]


def test_the_action_names_the_line_of_each_value_further_in(results: dict[str, Any]) -> None:
    assert results["lines"]["failed"]
    assert (
        'slipway_app_overrides_host.shop.domains[1] is "https://www.example.com": '
        "a domain has no scheme; write www.example.com (host_vars/lines.yml:4)"
    ) in results["lines"]["msg"]
    assert (
        "slipway_app_overrides_host.shop.environment.DEBUG is true: "
        "YAML reads this as a boolean; put it in quotes (host_vars/lines.yml:7)"
    ) in results["lines"]["msg"]


def test_an_app_that_stands_twice_stops_a_run_before_its_first_task(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {good: {}}}\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(GOOD + GOOD.partition("\n")[2])
    (tmp_path / "play.yml").write_text("- {hosts: all, gather_facts: false, tasks: [slipway.asgi.resolve_apps: {}]}\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "Found duplicate mapping key 'shop'" in done.stderr and "TASK" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"only": "shop"}, ["shop"]),
        ({"only": "shp"}, 'app is "shp": the apps of this host are shop'),
        ({"without": "shop"}, []),
        ({"without": "blog"}, ["shop"]),
        ({"without": ""}, 'app is "": a name is 1 to 23 lower-case letters'),
        ({"without": "../.."}, 'app is "../..": a name is 1 to 23 lower-case letters'),
    ],
)
def test_the_action_leaves_apps_out(
    playbook: Callable[..., Any], base: Path, arguments: dict[str, str], expected: list[str] | str
) -> None:
    facts = {"distribution": "Debian", "distribution_version": "13.1", "cacheable": True}
    tasks = [{"ansible.builtin.set_fact": facts}, {"slipway.asgi.resolve_apps": arguments}]
    found = playbook(base, tasks, {"good": {}})["good"][-1]
    if isinstance(expected, str):
        assert expected in found["msg"]
    else:
        assert found["names"] == ["shop"]
        for view in found["views"].values():
            assert [app["name"] for app in view] == expected
