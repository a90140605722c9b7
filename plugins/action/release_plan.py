"""The controller's half of release_plan: all apps with their configuration rendered, in one call."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.module_utils.generations import digest
from ansible_collections.slipway.asgi.plugins.module_utils.wanted import secret_files
from ansible_collections.slipway.asgi.plugins.plugin_utils.wanted import (
    complete,
    credentials_of,
    requirements_of,
    secrets_of,
)


class ActionModule(ActionBase):
    """Send what is wanted of every app and have it compared with what is live."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module once for all apps."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        sets = {app["server"]: requirements_of(self, arguments["requirements"], app) for app in arguments["apps"]}
        apps = [complete(self, app, arguments["files"], variables) for app in arguments["apps"]]
        # To compare a secret it takes no more than this.
        secrets = {
            app["name"]: {
                path: digest(content) for path, content in secret_files(secrets_of(self, app, variables)).items()
            }
            for app in arguments["apps"]
        }
        # And to ask a repository, no more than these.
        credentials = {
            app["name"]: credentials_of(self, app, variables, "source.key", "source.token") for app in arguments["apps"]
        }
        found: dict[str, Any] = self._execute_module(
            module_name="slipway.asgi.release_plan",
            module_args={
                "apps": apps,
                "sets": sets,
                "secrets": secrets,
                "credentials": credentials,
                "known": arguments.get("known", []),
            },
            task_vars=variables,
        )
        if found.get("failed"):
            return {**result, **found}
        plans: list[dict[str, Any]] = found.pop("plans")
        known = {app["name"]: app for app in arguments["apps"]}
        found["apps"] = {
            plan["name"]: {
                **known[plan["name"]],
                "release": plan["release"],
                "source": {**known[plan["name"]]["source"], **plan["source"]},
                "plan": plan,
            }
            for plan in plans
        }
        found["build"] = [plan["name"] for plan in plans if plan["build"]]
        found["migrate"] = [plan["name"] for plan in plans if plan["migrate"]]
        found["live"] = [plan["name"] for plan in plans if plan["switch"] or plan["tidy"]]
        found["reload"] = [plan["name"] for plan in plans if plan["reload"]]
        result.update(found)
        return result
