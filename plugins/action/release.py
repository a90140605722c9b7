"""The controller's half of release: the configuration rendered, the source sent where it is needed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import archive
from ansible_collections.slipway.asgi.plugins.plugin_utils.wanted import (
    complete,
    credentials_of,
    requirements_of,
    secrets_of,
)

# What the states need that take a release from the host itself.
BY_NAME = {"name", "release", "domains", "ready_path", "ready_seconds"}
# The states that write a configuration, and those that write the secrets with it.
CONFIGURED = {"migrated", "live", "reloaded"}
WITH_SECRETS = {"migrated", "live"}


class ActionModule(ActionBase):
    """Send one app with all that its state needs."""

    # Only where a source is sent, a directory is made for it.
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module for one app."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        state = arguments.get("state", "live")
        files = arguments.pop("files", [])
        if state == "present":
            app = complete(self, arguments["app"], [], variables)
            app["archive"] = self._send(app["source"])
            names = ("source.key", "source.token", "index.password")
            arguments["credentials"] = credentials_of(self, arguments["app"], variables, *names)
        elif state in CONFIGURED:
            app = complete(self, arguments["app"], files, variables)
        else:
            app = {key: value for key, value in arguments["app"].items() if key in BY_NAME}
        if state in WITH_SECRETS:
            arguments |= secrets_of(self, arguments["app"], variables)
        if arguments.get("requirements"):
            arguments["requirements"] = requirements_of(self, arguments["requirements"], arguments["app"])
        arguments["app"] = app
        result.update(
            self._execute_module(module_name="slipway.asgi.release", module_args=arguments, task_vars=variables)
        )
        return result

    def _send(self, source: dict[str, Any]) -> str | None:
        """Send the files of a path to the host, and return where they lie there."""
        if not source.get("path") or self._play_context.check_mode:
            return None
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        target: str = self._connection._shell.join_path(self._connection._shell.tmpdir, "source.tar")
        handle, name = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP)
        os.close(handle)
        try:
            archive(Path(source["path"]), Path(name))
            return str(self._transfer_file(name, target))
        finally:
            os.unlink(name)
