"""The controller's half of acme: it adds what opens the user's DNS, of which the role knows only where it stands."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.asgi.plugins.plugin_utils.issuers import DIRECTORIES, is_issued
from ansible_collections.slipway.asgi.plugins.plugin_utils.wanted import value_of


class ActionModule(ActionBase):
    """Send what each app wants of its CA in one call."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module once for all apps that have an issuer."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        apps, credentials, keys = [], {}, {}
        for app in filter(is_issued, self._task.args["apps"]):
            certificate = app["certificate"]
            dns, eab = certificate.get("dns") or {}, certificate.get("eab") or {}
            wish = {
                "name": app["name"],
                "domains": app["domains"],
                "server": DIRECTORIES.get(certificate["issuer"], certificate["issuer"]),
                "dns": dns.get("plugin"),
                "propagation_seconds": dns.get("propagation_seconds"),
                "eab_kid": eab.get("kid"),
                **{key: certificate.get(key) for key in ("email", "key_type", "profile", "precheck")},
            }
            apps.append({key: value for key, value in wish.items() if value is not None})
            credentials[app["name"]] = {
                name: value_of(self, reference, variables) for name, reference in (dns.get("credentials") or {}).items()
            }
            if eab:
                keys[app["name"]] = value_of(self, eab["hmac_key"], variables)
        arguments = {**self._task.args, "apps": apps, "credentials": credentials, "eab_hmac_keys": keys}
        result.update(self._execute_module(module_name="slipway.asgi.acme", module_args=arguments, task_vars=variables))
        return result
