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
    # What the user did not give is None here, and would count as given.
    source = {key: value for key, value in app["source"].items() if value is not None}
    if source.get("path") and not source.get("digest"):
        source["digest"] = digest_of(Path(source["path"]))
    rendered = render_files(action, files, variables, {"app": app})
    known = {key: value for key, value in app.items() if key in APP_OPTIONS}
    return {**known, "source": source, "files": rendered, "migrate": migrates(app, variables)}


def secrets_of(action: ActionBase, app: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, str]:
    """The values of an app's secrets, of which the role knows only where they stand."""
    return {name: _secret(action, steps, variables) for name, steps in app.get("secrets", {}).items()}


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


def _secret(action: ActionBase, steps: list[Any], variables: Mapping[str, Any]) -> str:
    value: Any = variables.get(steps[0])
    for step in steps[1:]:
        if isinstance(value, str):
            value = action._templar.template(value)
        value = value[step]
    rendered = action._templar.template(value)
    if not isinstance(rendered, str):
        raise AnsibleActionFail(f"{'.'.join(map(str, steps))}: a secret is a text")
    return rendered
