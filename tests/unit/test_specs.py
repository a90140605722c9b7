"""The roles' argument specs: the one place for an option's type, default and meaning, and true to what roles do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.slipway.asgi.plugins.plugin_utils.apps import VIEWS, load_specs, load_variables
from ansible_collections.slipway.asgi.plugins.plugin_utils.kinds import KINDS, VARIABLES

ROLES = Path(__file__).resolve().parents[2] / "roles"
PLAYBOOKS = sorted((ROLES.parent / "playbooks").rglob("*.yml"))
# The types of what a user writes with no rules but those of its kind.
FREE = ("str", "int", "list", "path", "raw")
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
Option = Mapping[str, Any]


def spec(role: str) -> dict[str, Any]:
    specs: dict[str, Any] = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    assert list(specs) == ["argument_specs"] and next(iter(specs["argument_specs"])) == "main"
    main: dict[str, Any] = specs["argument_specs"]["main"]
    return main


def options(role: str) -> dict[str, Option]:
    found: dict[str, Option] = spec(role)["options"]
    return found


def all_options(found: Mapping[str, Option], path: str = "") -> Iterator[tuple[str, Option]]:
    for name, option in found.items():
        yield f"{path}{name}", option
        yield from all_options(option.get("options", {}), f"{path}{name}.")


EVERY = [pytest.param(option, id=f"{role}: {path}") for role in NAMES for path, option in all_options(options(role))]


def text(option: Option) -> str:
    description = option["description"]
    return " ".join([description] if isinstance(description, str) else description)


def test_there_are_roles() -> None:
    assert set(VIEWS) <= set(NAMES)
    assert len(EVERY) > len(NAMES)


@pytest.mark.parametrize("role", NAMES)
def test_specs_and_defaults_agree_in_names_and_values(role: str) -> None:
    defaults = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text()) or {}
    assert defaults == {name: option["default"] for name, option in options(role).items() if "default" in option}


@pytest.mark.parametrize("role", NAMES)
def test_the_defaults_file_shows_what_has_no_default(role: str) -> None:
    shown = (ROLES / role / "defaults" / "main.yml").read_text()
    for name, option in options(role).items():
        if "default" not in option:
            assert f"\n# {name}:" in shown, f"{name} has no default and no example"


@pytest.mark.parametrize("role", NAMES)
def test_names_carry_the_role(role: str) -> None:
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", NAMES)
def test_a_role_says_what_it_is_for(role: str) -> None:
    main = spec(role)
    assert main["short_description"] and not main["short_description"].endswith(".")
    assert text(main).endswith(".")


@pytest.mark.parametrize("option", EVERY)
def test_an_option_is_described_in_sentences_with_an_example(option: Option) -> None:
    description = text(option)
    assert description[0].isupper() and description.endswith(".")
    assert "{{" not in str(option), "Ansible renders its specs"
    # A switch, a choice and what the options further in describe need none.
    if option["type"] != "bool" and "choices" not in option and option.get("elements") != "dict":
        assert "for example" in description.lower()


def test_what_is_secret_is_marked() -> None:
    secret = {path for role in load_specs(ROLES).values() for path, option in all_options(role) if option.get("no_log")}
    certificate = {"certificate.dns.credentials", "certificate.eab.hmac_key"}
    assert secret == {"secrets", "secret_environment", "source.key", "source.token", "index.password", *certificate}


@pytest.mark.parametrize("option", EVERY)
def test_an_option_has_a_type_and_a_default_of_it_or_none(option: Option) -> None:
    assert not (option.get("required") and "default" in option)
    result = ArgumentSpecValidator({"x": dict(option)}).validate(
        {"x": option["default"]} if "default" in option else {}
    )
    if "default" in option:
        assert not result.error_messages
        # Not merely something that could be made one.
        assert type(result.validated_parameters["x"]) is type(option["default"])
    assert ("elements" in option) == (option["type"] == "list")


def test_options_that_roles_share_mean_the_same_in_each() -> None:
    seen: dict[str, Option] = {}
    shared = set()
    for app in load_specs(ROLES).values():
        for name, option in app.items():
            comparable = {**option, "description": text(option)}
            if name in seen:
                shared.add(name)
                assert comparable == seen[name], name
            seen[name] = comparable
    assert {"name", "domains", "ready_path"} <= shared


def test_variables_that_roles_share_mean_the_same_in_each() -> None:
    """Such as the public port, which the playbook passes to nginx and to the summary."""
    seen: dict[str, Any] = {}
    for role in NAMES:
        for name, option in options(role).items():
            if "default" in option and option["type"] in ("int", "str"):
                bare = name.removeprefix(f"{role}_")
                assert seen.setdefault(bare, option["default"]) == option["default"], bare


def bare(place: str) -> str:
    return place.removesuffix("[]").removesuffix("{key}").removesuffix("{}")


def test_what_is_checked_beyond_its_type_is_an_option() -> None:
    app = {path for role in load_specs(ROLES).values() for path, _ in all_options(role)}
    assert set(map(bare, KINDS)) <= app
    assert set(map(bare, VARIABLES)) <= set(load_variables(ROLES))


def test_every_text_and_number_of_an_app_is_checked_beyond_its_type() -> None:
    """A text without rules could break out of a unit, a shell or nginx's configuration."""
    unchecked = {
        path
        for role in load_specs(ROLES).values()
        for path, option in all_options(role)
        if option["type"] in FREE and "choices" not in option and path not in map(bare, KINDS)
    }
    # The name is a key, and those two are looked at on the controller, which is where they lead.
    assert unchecked == {"name", "source.path", "certificate.fullchain", "certificate.privkey"}


def test_every_name_and_value_of_a_mapping_is_checked() -> None:
    for role in load_specs(ROLES).values():
        for path, option in all_options(role):
            if option["type"] == "dict" and "options" not in option:
                assert f"{path}{{key}}" in KINDS
                # What is secret has a rule of its own, unless there is one here.
                assert f"{path}{{}}" in KINDS or option.get("no_log")


def test_every_text_and_number_beside_the_apps_is_checked_beyond_its_type() -> None:
    passed = set(re.findall(r"^ +(\w+):", "".join(path.read_text() for path in PLAYBOOKS), re.MULTILINE))
    unchecked = {
        name
        for name, option in load_variables(ROLES).items()
        if option["type"] in FREE and "choices" not in option and name not in map(bare, VARIABLES)
    }
    assert unchecked <= passed
