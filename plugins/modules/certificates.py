#!/usr/bin/python
"""A certificate for each app, behind names that stay the same whoever issued it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Keep a certificate for each app behind stable names
description:
  - Keeps C(fullchain.pem) and C(privkey.pem) of every app in O(root)C(/NAME), which is a link to a generation, so that
    certificate and key change together with one rename.
  - An app that brings no files of its own gets a self-signed certificate (ECDSA P-256, 825 days) for all its domains.
    It is made anew when the domains change, when less than a third of its time is left, or when its key is not its own.
  - An app whose certificate comes from a CA keeps what it has, until M(slipway.asgi.acme) has another one issued; where
    it has none, it gets a self-signed one.
  - Files of the user's are read and checked on the controller.
  - The certificate of an app that is not listed is left alone.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description: The apps.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The app's name.
        type: str
        required: true
      domains:
        description: The names that the certificate must cover; the leftmost label of one may be V(*).
        type: list
        elements: str
        required: true
      certificate:
        description: Who issues it; without it, it signs itself.
        type: dict
        suboptions:
          issuer:
            description: The CA of M(slipway.asgi.acme), or V(self-signed).
            type: str
          fullchain:
            description: The file on the controller with the user's own certificate and, after it, its chain.
            type: path
          privkey:
            description: The file on the controller with its private key, which may be encrypted with ansible-vault.
            type: path
  remove:
    description: The names of apps that are gone; what a CA has issued for them is not renewed any more.
    type: list
    elements: str
    default: []
  delete:
    description: Whether the certificates of O(remove) are deleted as well.
    type: bool
    default: false
  root:
    description: The directory of the certificates.
    type: path
    default: /etc/slipway/certificates
  pending:
    description:
      - A file that is made just before a certificate changes. Who serves the certificates takes them up while it is
        there, and removes it.
    type: path
  key_group:
    description: The group that may read private keys, beside root; made where there is none of this name.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says which certificates would change.
  diff_mode:
    support: full
    description: Shows issuer, names, end and fingerprint of each certificate before and after; never a key.
"""

EXAMPLES = r"""
- name: Provide a certificate for each app
  slipway.asgi.certificates:
    apps:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
      - name: blog
        domains: [blog.example.com]
        certificate: {fullchain: files/blog.pem, privkey: files/blog.key}
    pending: /etc/nginx/slipway/pending
    key_group: slipway-keys
"""

RETURN = r"""
changed_apps:
  description: The apps whose certificate changed.
  returned: always
  type: list
  elements: str
  sample: [shop]
certificates:
  description: The certificates that are in place now.
  returned: outside of check mode
  type: list
  elements: dict
  sample:
    - name: shop
      issuer: O=Slipway self-signed,CN=shop
      names: [shop.example.com, www.shop.example.com]
      not_after: "2029-02-23T04:41:10+00:00"
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, alone
from ansible_collections.slipway.asgi.plugins.module_utils.realms import (
    DAYS,
    SELF_SIGNED,
    Front,
    Pair,
    Realm,
    Refused,
    inspect,
    make_group,
    self_signed,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "apps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "domains": {"type": "list", "elements": "str", "required": True},
                    "fullchain": {"type": "str"},
                    "issued": {"type": "bool", "default": False},
                },
            },
            # Keys stand apart: Ansible logs a list as one text, in which it does not find a secret that has many lines.
            "privkeys": {"type": "dict", "default": {}, "no_log": True},
            "remove": {"type": "list", "elements": "str", "default": []},
            "delete": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/etc/slipway/certificates"},
            "pending": {"type": "path"},
            "key_group": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        with alone(None if module.check_mode else module.params["pending"]):
            result = converge(module.params, module.check_mode, Desk())
    except (Failed, Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def converge(options: Mapping[str, Any], check: bool, desk: Desk) -> dict[str, Any]:
    """Give each app the certificate that it shall have.

    Args:
        options: the module's options.
        check: say only what would change.
        desk: where lies what is wanted of a CA.

    Returns:
        The module's result.

    Raises:
        Refused: a certificate could not be read or made; those of the apps before it are in place.
    """
    root = Path(options["root"])
    pending, key_group = options.get("pending"), options.get("key_group", "")
    front = Front(Path(pending) if pending else None, key_group=key_group)
    if key_group and not check:
        make_group(key_group)
    result: dict[str, Any] = {"changed": False, "changed_apps": [], "diff": [], "certificates": []}
    for name in options.get("remove", []):
        realm = Realm(root, name)
        if desk.wishes_for(name) or (options["delete"] and realm.exists):
            result["changed"] = True
            result["changed_apps"].append(name)
            if not check:
                desk.forget(name)
                desk.discard(name)
                if options["delete"]:
                    realm.delete()
    for app in options["apps"]:
        realm = Realm(root, app["name"])
        before = realm.pair()
        wanted = _wanted(app, before, options["privkeys"])
        if not app.get("issued") and desk.wishes_for(app["name"]):
            # First of all: a renewal would put the old issuer's certificate back.
            result["changed"] = True
            if not check:
                desk.forget(app["name"])
        if wanted is None or not realm.holds(wanted, front):
            result["changed"] = True
            result["changed_apps"].append(app["name"])
            if not check:
                wanted = wanted or self_signed(app["name"], app["domains"])
                realm.put(wanted, front)
            link = str(realm.generations.link)
            result["diff"].append(
                {
                    "before_header": link,
                    "after_header": link,
                    "before": _description(before),
                    "after": _description(wanted) if wanted else _announcement(app["name"], app["domains"]),
                }
            )
        if not check and wanted:
            result["certificates"].append({"name": app["name"], **inspect(wanted.fullchain).facts})
    return result


def _wanted(app: Mapping[str, Any], before: Pair | None, privkeys: Mapping[str, str]) -> Pair | None:
    """The pair that shall be served; None is a new one, signed by itself."""
    if app.get("fullchain"):
        return Pair(app["fullchain"], privkeys[app["name"]])
    if before is None or not before.matches:
        return None
    if before.is_self_signed:
        return before if _still_good(before, app["domains"]) else None
    # Whatever there is, until the CA has issued another one.
    return before if app.get("issued") else None


def _still_good(pair: Pair, domains: Sequence[str]) -> bool:
    """Whether a self-signed certificate can stay."""
    found = inspect(pair.fullchain)
    return set(found.names) == set(domains) and not found.is_aging(datetime.datetime.now(datetime.timezone.utc))


def _description(pair: Pair | None) -> str:
    try:
        return str(inspect(pair.fullchain)) if pair else ""
    except Refused:
        return "unreadable\n"


def _announcement(name: str, domains: Sequence[str]) -> str:
    return f"issuer: CN={name},O={SELF_SIGNED}\nnames: {', '.join(sorted(domains))}\ngood for: {DAYS} days\n"


if __name__ == "__main__":
    main()
