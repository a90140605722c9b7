"""The controller's half of certificates: it reads and checks the files that users bring."""

from __future__ import annotations

import datetime
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.plugin_utils.issuers import is_issued
from ansible_collections.slipway.asgi.plugins.plugin_utils.own_certificates import read


class ActionModule(ActionBase):
    """Send every app's certificate, or the wish for a self-signed one, in one call."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the users' files, check them all, and run the module once."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        now = datetime.datetime.now(datetime.UTC)
        apps, privkeys, mistakes, warnings = [], {}, [], []
        for app in self._task.args["apps"]:
            sent = {"name": app["name"], "domains": app["domains"], "issued": is_issued(app)}
            apps.append(sent)
            if not (app.get("certificate") or {}).get("fullchain"):
                continue
            try:
                own = read(self._loader, app["name"], app["certificate"])
            except AnsibleError as error:
                mistakes.append(str(error))
                continue
            mistakes += own.mistakes(app["domains"], now)
            warnings += own.warnings(now)
            sent["fullchain"] = own.fullchain_text
            privkeys[app["name"]] = own.privkey_text
        if mistakes:
            raise AnsibleActionFail("\n  - ".join(["Certificates cannot be used; nothing was changed.", *mistakes]))
        result.update(
            self._execute_module(
                module_name="slipway.asgi.certificates",
                module_args={**self._task.args, "apps": apps, "privkeys": privkeys},
                task_vars=task_vars,
            )
        )
        result["warnings"] = [*result.get("warnings", []), *warnings]
        return result
