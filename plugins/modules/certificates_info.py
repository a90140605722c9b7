#!/usr/bin/python
"""What certificates are served, in a table that a person reads."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificates_info
short_description: Show the certificates of apps
description:
  - Says of each app's certificate who issued it, for which names, how many days it is good for, and what keeps its CA
    from issuing another one, where something does.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description: The names of the apps.
    type: list
    elements: str
    required: true
  root:
    description: The directory of the certificates.
    type: path
    default: /etc/slipway/certificates
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Look at the certificates
  slipway.asgi.certificates_info:
    apps: [shop, blog]
"""

RETURN = r"""
certificates:
  description: The certificates, by the app's name in the order of O(apps).
  returned: always
  type: list
  elements: dict
  sample:
    - name: shop
      issuer: CN=E7,O=Let's Encrypt,C=US
      names: [shop.example.com, www.shop.example.com]
      not_after: "2027-02-02T04:41:10+00:00"
      days: 73
lines:
  description: The same for people, a line for each.
  returned: always
  type: list
  elements: str
  sample: ["shop  73 days  CN=E7,O=Let's Encrypt,C=US  shop.example.com www.shop.example.com"]
"""

import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk
from ansible_collections.slipway.asgi.plugins.module_utils.realms import Realm, Refused, inspect


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway/certificates"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**look(module.params["apps"], Path(module.params["root"]), Desk()))


def look(apps: list[str], root: Path, desk: Desk) -> dict[str, Any]:
    """Look at the certificates of these apps.

    Args:
        apps: their names.
        root: the directory of the certificates.
        desk: where what came of a CA's work lies.

    Returns:
        The module's result.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    outcomes = desk.outcomes()
    found = []
    rows = []
    notes = []
    for name in apps:
        pair = Realm(root, name).pair()
        try:
            certificate = inspect(pair.fullchain) if pair else None
        except Refused:
            certificate = None
        if certificate is None:
            rows.append((name, "-", "no certificate", ""))
        else:
            days = (certificate.not_after - now).days
            found.append({"name": name, **certificate.facts, "days": days})
            rows.append((name, f"{days} days", certificate.issuer, " ".join(certificate.names)))
        if desk.wishes_for(name) and name in outcomes:
            notes += [f"{name}: {message}" for message in outcomes[name].messages]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return {"changed": False, "certificates": found, "lines": [*table, *notes]}


if __name__ == "__main__":
    main()
