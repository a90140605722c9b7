"""What ansible-doc says of each plugin is true of it."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.asgi.plugins.action import resolve_apps

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))
FILTERS = sorted(path.stem for path in (PLUGINS / "filter").glob("*.py"))
ACTIONS = sorted(path.stem for path in (PLUGINS / "action").glob("*.py"))
EVERY = [*(("module", name) for name in MODULES), *(("filter", name) for name in FILTERS)]
# What an action takes for itself, and what it hands to its module in place of that.
CONSUMED = {
    "acme": ["apps.certificate"],
    "certificates": ["apps.certificate", "apps.certificate.*"],
    "config_set": ["files.template", "files.src", "files.each"],
    "release": ["files"],
    "release_plan": ["files", "requirements"],
}
ADDED = {
    "acme": [
        *("apps.server", "apps.email", "apps.key_type", "apps.profile", "apps.dns", "apps.propagation_seconds"),
        *("apps.precheck", "apps.eab_kid", "credentials", "eab_hmac_keys"),
    ],
    "certificates": ["apps.fullchain", "apps.issued", "privkeys"],
    "config_set": ["confirmed"],
    "release_plan": ["apps.*", "sets"],
}
COMPARED: dict[str, Any] = {"type": "str", "elements": None, "required": False, "default": None, "choices": None}


def ansible_doc(kind: str, *arguments: str) -> str:
    names = [f"slipway.asgi.{name}" for type_, name in EVERY if type_ == kind]
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-doc", "-t", kind, *arguments, *names],
        cwd=PLUGINS.parent,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def docs() -> dict[tuple[str, str], dict[str, Any]]:
    """What ansible-doc knows of each plugin."""
    found = {kind: json.loads(ansible_doc(kind, "--json")) for kind in ("module", "filter")}
    return {(kind, name): found[kind][f"slipway.asgi.{name}"] for kind, name in EVERY}


def flatten(options: Mapping[str, Any], below: str, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each option with what is compared of it; ``below`` is the key under which further ones stand."""
    for name, option in options.items():
        yield f"{path}{name}", {key: option.get(key, default) for key, default in COMPARED.items()}
        yield from flatten(option.get(below) or {}, below, f"{path}{name}.")


def without(options: Iterator[tuple[str, dict[str, Any]]], patterns: list[str]) -> dict[str, dict[str, Any]]:
    found = dict(options)
    for pattern in patterns:
        assert fnmatch.filter(found, pattern), f"{pattern} is no longer an exception"
    return {path: option for path, option in found.items() if not any(fnmatch.fnmatch(path, one) for one in patterns)}


class Seen(Exception):
    """What a module said of its arguments."""


@pytest.mark.parametrize("kind", ["module", "filter"])
def test_ansible_doc_renders_without_a_word_of_complaint(kind: str) -> None:
    shown = ansible_doc(kind)
    for type_, name in EVERY:
        assert (f"> {kind} slipway.asgi.{name} ".upper() in shown.upper()) == (type_ == kind)


def test_every_action_is_documented_by_the_module_of_its_name() -> None:
    assert set(ACTIONS) <= set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "resolve_apps"])
def test_options_are_those_of_the_module(
    docs: dict[tuple[str, str], dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"ansible_collections.slipway.asgi.plugins.modules.{name}")

    def look(**specification: Any) -> None:
        raise Seen(specification)

    monkeypatch.setattr(module, "AnsibleModule", look)
    with pytest.raises(Seen) as seen:
        module.main()
    specification = seen.value.args[0]
    secret = {key for key, option in specification["argument_spec"].items() if option.get("no_log")}
    known = {"secrets", "secret_environment", "credentials", "privkeys", "eab_hmac_keys"}
    assert secret == known & set(specification["argument_spec"])
    documentation = docs["module", name]["doc"]
    documented = without(flatten(documentation["options"], "suboptions"), CONSUMED.get(name, []))
    taken = without(flatten(specification["argument_spec"], "options"), ADDED.get(name, []))
    assert documented == taken
    assert specification["supports_check_mode"] == (documentation["attributes"]["check_mode"]["support"] == "full")


def test_an_action_without_a_module_takes_what_it_documents(docs: dict[tuple[str, str], dict[str, Any]]) -> None:
    documented = docs["module", "resolve_apps"]["doc"]["options"]
    assert set(documented) == set(resolve_apps.OPTIONS)
    for name, option in resolve_apps.OPTIONS.items():
        assert {key: documented[name][key] for key in option} == option


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_gives_what_it_is_named_for(docs: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    module = importlib.import_module(f"ansible_collections.slipway.asgi.plugins.filter.{name}")
    parameters = list(inspect.signature(module.FilterModule().filters()[name]).parameters.values())
    documented = docs["filter", name]["doc"]["options"]
    assert {parameter.name for parameter in parameters[1:]} == set(documented) - {"_input"}
    for parameter in parameters[1:]:
        assert documented[parameter.name].get("default", parameter.empty) == parameter.default


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_all_is_said(docs: dict[tuple[str, str], dict[str, Any]], kind: str, name: str) -> None:
    found = docs[kind, name]
    doc = found["doc"]
    assert not doc["short_description"].endswith(".")
    for text in doc["description"]:
        assert text.endswith(".")
    assert doc["author"] and doc["version_added"]
    for path, option in _described(doc["options"]):
        description = option["description"]
        assert all(text.endswith(".") for text in ([description] if isinstance(description, str) else description)), (
            path
        )
    assert found["return"]
    for path, value in found["return"].items():
        assert value["type"] and value["description"], path
        assert "elements" in value or value["type"] != "list", path


def _described(options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, option in options.items():
        yield name, option
        yield from _described(option.get("suboptions", {}))


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_tasks_with_options_that_there_are(docs: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    documented = set(docs["module", name]["doc"].get("options", {}))
    used = []
    for task in yaml.safe_load(docs["module", name]["examples"]):
        assert task["name"][0].isupper()
        if f"slipway.asgi.{name}" in task:
            used.append(set(task[f"slipway.asgi.{name}"] or {}))
    assert used, "no example uses the module"
    assert set().union(*used) <= documented
