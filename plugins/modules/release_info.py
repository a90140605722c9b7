#!/usr/bin/python
"""The releases of the apps on a host, which are live, and where a rollback goes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: List the releases of the apps on a host
description:
  - Reads what M(slipway.asgi.release) keeps on the host. It needs no inventory of apps, and finds those too that are no
    longer in it.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  app:
    description: The one app to list; all of the host where it is not given.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to show.
seealso:
  - module: slipway.asgi.release
"""

EXAMPLES = r"""
- name: Look what is there
  slipway.asgi.release_info:
  register: slipway_releases
"""

RETURN = r"""
apps:
  description: The apps in the order of their names, each with its releases, newest first.
  returned: always
  type: list
  elements: dict
  sample:
    - name: shop
      slot: green
      release: 3f9a1c20b7de
      since: 1795245060
      previous: 91bd02ac44f1
      releases:
        - id: 3f9a1c20b7de
          built: 1795245000
          version: v1.4.2
          commit: 8c0ffee1d2b3a4958676f5e4d3c2b1a090817263
          python: /usr/bin/python3.13
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.history import History
from ansible_collections.slipway.asgi.plugins.module_utils.host import Layout, layouts


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"app": {"type": "str", "default": ""}}, supports_check_mode=True)
    wanted = module.params["app"]
    apps = [describe(layout) for layout in layouts() if wanted in ("", layout.name)]
    module.exit_json(changed=False, apps=apps)


def describe(layout: Layout) -> dict[str, Any]:
    """One app: what is live, since when, where a rollback goes, and its complete releases, newest first."""
    history = History(layout)
    now, back = history.now(), history.before()
    releases = [release(path) for path in layout.releases.glob("*") if layout.is_complete(path.name)]
    return {
        "name": layout.name,
        "slot": layout.live_slot(),
        "release": now.release if now else None,
        "since": history.since(),
        "previous": back.release if back else None,
        "releases": sorted(releases, key=lambda found: (-found["built"], found["id"])),
    }


def release(path: Path) -> dict[str, Any]:
    """One release: its id, when it was built, in seconds of the epoch, and what of, unless its marker is garbage."""
    marker = path / "complete"
    found = {"id": path.name, "built": int(marker.stat().st_mtime)}
    try:
        return {**found, **json.loads(marker.read_bytes())}
    except (TypeError, ValueError):
        return found


if __name__ == "__main__":
    main()
