"""The controller's half of config_set: it renders the whole set and sends it in one call."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files

# Between two tries to reach a host again, in seconds; sshd counts a failed login for 5 (PerSourcePenalties), and at 15
# it listens to this controller no more.
PAUSE_SECONDS = 5.0


class ActionModule(ActionBase):
    """Render the files of a set and hand them to the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with every file's content: once, or where that is wanted once more to confirm a change."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["files"] = render_files(self, arguments["files"], task_vars, {})
        result.update(self._converge(arguments, task_vars))
        if result.pop("unconfirmed", False):
            result.update(self._confirm(arguments, task_vars))
        return result

    def _converge(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="slipway.asgi.config_set", module_args=arguments, task_vars=task_vars
        )
        return result

    def _confirm(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Come back by a new connection; where that fails until the host has undone the change, hear it say so."""
        # Every try may itself wait as long as the connection's own timeout.
        deadline = time.monotonic() + 2 * arguments["confirm"]
        while True:
            try:
                self._connection.reset()
                return self._converge({**arguments, "confirmed": True}, task_vars)
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)
