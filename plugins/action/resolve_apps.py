"""Resolve what the user wrote about apps, before anything on the host is touched."""

from __future__ import annotations

import datetime
import linecache
import os
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.module_utils.git import is_ssh
from ansible_collections.slipway.asgi.plugins.plugin_utils import kinds
from ansible_collections.slipway.asgi.plugins.plugin_utils.apps import (
    Context,
    Mistakes,
    check,
    load_specs,
    load_variables,
    resolve,
)
from ansible_collections.slipway.asgi.plugins.plugin_utils.own_certificates import read

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Distribution and version, as Ansible's facts name them, to the version of its own Python.
SUPPORTED = {
    ("Debian", "12"): "3.11",
    ("Debian", "13"): "3.13",
    ("Ubuntu", "22.04"): "3.10",
    ("Ubuntu", "24.04"): "3.12",
}
# gunicorn 27 and uvicorn 0.54 need it.
OLDEST_PYTHON = (3, 11)

OPTIONS = {"only": {"type": "str", "default": ""}, "without": {"type": "str"}}


class ActionModule(ActionBase):
    """Return each role's view of the apps, or fail with every mistake at once."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resolve the apps of one host."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(OPTIONS)
        only, without = arguments["only"], arguments["without"]
        base = Path(variables.get("inventory_dir") or os.getcwd())
        mistakes: list[str] = []
        facts = variables.get("ansible_facts", {})
        if "distribution" not in facts:
            facts = result["ansible_facts"] = self._distribution()
        own_python = _own_python(facts["distribution"], facts["distribution_version"], mistakes)
        context = Context(self._templar.template, origin, written, base)
        mistakes += check(load_variables(ROLES), variables, context)
        try:
            views = resolve(load_specs(ROLES), variables, context)
        except Mistakes as error:
            mistakes += error.messages
            views = {"app": [], "certificates": []}
        mistakes += self._own_certificates(views["certificates"])
        versions = []
        for app in views["app"]:
            version = own_python if app["python"] == "system" else app["python"]
            if version and tuple(map(int, version.split("."))) < OLDEST_PYTHON:
                mistakes.append(
                    f'slipway_apps.{app["name"]}.python is "{app["python"]}", which is Python {version} here: '
                    f'{".".join(map(str, OLDEST_PYTHON))} or newer is needed; set python: "3.13"'
                )
            if version != own_python:
                versions.append(app["python"])
        known = [app["name"] for app in views["app"]]
        if without is not None:
            try:
                kinds.app_name(without)
            except ValueError as error:
                mistakes.append(f'app is "{without}": {error}')
        if only and only not in known and not mistakes:
            mistakes.append(f'app is "{only}": the apps of this host are {", ".join(known) or "none"}')
        for view in views.values():
            view[:] = [app for app in view if (not only or app["name"] == only) and app["name"] != without]
        if mistakes:
            count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
            host = variables.get("inventory_hostname")
            raise AnsibleActionFail(
                "\n  - ".join([f"The variables of {host} have {count}; nothing was changed.", *mistakes])
            )
        packages = {package for app in views["app"] for package in app["packages"]}
        if any(is_ssh(app["source"].get("git") or "https://") for app in views["app"]):
            packages.add("openssh-client")
        result.update(
            changed=False, views=views, names=known, python_versions=sorted(set(versions)), packages=sorted(packages)
        )
        return result

    def _own_certificates(self, apps: list[dict[str, Any]]) -> list[str]:
        now = datetime.datetime.now(datetime.UTC)
        mistakes = []
        for app in apps:
            if (app.get("certificate") or {}).get("fullchain"):
                try:
                    mistakes += read(self._loader, app["name"], app["certificate"]).mistakes(app["domains"], now)
                except AnsibleActionFail as error:
                    mistakes.append(str(error))
        return mistakes

    def _distribution(self) -> dict[str, str]:
        # Less than 0.1 s; the module setup, asked for these alone, takes 0.7 to 0.8.
        done = self._low_level_execute_command("cat /etc/os-release", sudoable=False)
        found = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in done["stdout_lines"])}
        if "NAME" not in found:
            raise AnsibleActionFail(f"the host has no /etc/os-release that says what it runs: {done['stderr'].strip()}")
        return {
            "distribution": found["NAME"].split()[0],
            "distribution_release": found.get("VERSION_CODENAME", ""),
            "distribution_version": found.get("VERSION_ID", ""),
        }


def _own_python(distribution: str, version: str, mistakes: list[str]) -> str | None:
    key = (distribution, version.split(".")[0] if distribution == "Debian" else version)
    if key not in SUPPORTED:
        known = ", ".join(" ".join(pair) for pair in SUPPORTED)
        mistakes.append(f"The host runs {distribution} {version}: Slipway supports {known}")
    return SUPPORTED.get(key)


def origin(value: Any) -> str:
    """Where a value was written, as ``file:line``; "" where Ansible does not know."""
    tag = _tag(value)
    if tag is None or not tag.path:
        return ""
    return f"{os.path.relpath(tag.path)}:{tag.line_num}" if tag.line_num else os.path.relpath(tag.path)


def written(value: int) -> str:
    """How a whole number was written, such as ``0123``; "" where Ansible does not know."""
    tag = _tag(value)
    if tag is None or not (tag.path and tag.line_num and tag.col_num):
        return ""
    linecache.checkcache(tag.path)
    found = re.match(r"[-+]?\d[\w:]*", linecache.getline(tag.path, tag.line_num)[tag.col_num - 1 :])
    # What stands there in a template, or in an encrypted file, is something else.
    return found[0] if found and yaml.safe_load(found[0]) == value else ""


def _tag(value: Any) -> Any:
    """What Ansible keeps of a value's origin; its reader is not public yet, so that its absence must not matter."""
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return None
    return Origin.get_tag(value)
