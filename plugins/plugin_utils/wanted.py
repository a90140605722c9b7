"""What the actions release and release_plan add to an app before its modules see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.module_utils.wanted import APP_OPTIONS
from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files
from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import digest_of


def complete(
    action: ActionBase, app: Mapping[str, Any], files: list[dict[str, Any]], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """An app with its source identified and its configuration rendered.

    Args:
        action: the running action.
        app: the app as the role has it.
        files: the templates of the configuration.
        variables: the variables of the task.

    Returns:
        What the modules take as ``app``.
    """
    source = _known(app["source"], APP_OPTIONS["source"]["options"])
    if source.get("path") and not source.get("digest"):
        source["digest"] = digest_of(Path(source["path"]))
    rendered = render_files(action, files, variables, {"app": app})
    known = _known(app, APP_OPTIONS)
    for option in {"index", "sandbox"} & set(known):
        known[option] = _known(known[option], APP_OPTIONS[option]["options"])
    return {**known, "source": source, "files": rendered, "migrate": migrates(app, variables)}


def _known(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a module takes: what the user did not give is None here, and would count as given."""
    return {key: value for key, value in values.items() if key in options and value is not None}


def secrets_of(action: ActionBase, app: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The values of an app's secrets, by option and name; the role knows only where they stand."""
    return {
        option: {name: value_of(action, reference, variables) for name, reference in app.get(option, {}).items()}
        for option in ("secrets", "secret_environment")
    }


def credentials_of(
    action: ActionBase, app: Mapping[str, Any], variables: Mapping[str, Any], *wanted: str
) -> dict[str, str]:
    """The values of those of an app's credentials that it has, such as ``source.key``, by these names."""
    found = {}
    for name in wanted:
        option, _, key = name.partition(".")
        reference = (app.get(option) or {}).get(key)
        if reference:
            found[name] = value_of(action, reference, variables)
    return found


def requirements_of(action: ActionBase, path: str, app: Mapping[str, Any]) -> str:
    """The hashed requirements of an app's server, from the role's file of this path with its name filled in."""
    return str(action._loader.get_text_file_contents(action._find_needle("files", path.format(**app))))


def migrates(app: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Whether this host runs the app's migration: each does, or the first of the play that has the app."""
    if not app.get("migrate"):
        return False
    if app.get("migrate_on") == "each":
        return True
    hosts = variables.get("ansible_play_hosts_all", [])
    having = [host for host in hosts if app["name"] in _apps(variables, host)]
    return not having or having[0] == variables.get("inventory_hostname")


def _apps(variables: Mapping[str, Any], host: str) -> Any:
    return variables.get("hostvars", {}).get(host, {}).get("slipway_apps", {})


def value_of(action: ActionBase, reference: str, variables: Mapping[str, Any]) -> str:
    """What stands where a reference leads: a variable and keys, joined by dots."""
    variable, *keys = reference.split(".")
    value: Any = variables.get(variable)
    for key in keys:
        if isinstance(value, str):
            value = action._templar.template(value)
        value = value[key]
    rendered = action._templar.template(value)
    if not isinstance(rendered, str):
        raise AnsibleActionFail(f"{reference}: a secret is a text")
    return rendered
