"""The controller's half of config_set: it renders the whole set and sends it in one call."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files


class ActionModule(ActionBase):
    """Render the files of a set and hand them to the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module once with every file's content."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["files"] = render_files(self, arguments["files"], task_vars, {})
        result.update(
            self._execute_module(module_name="slipway.asgi.config_set", module_args=arguments, task_vars=task_vars)
        )
        return result
