#!/usr/bin/python
"""What there is to do for each app of a host, found in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_plan
short_description: Compare what is live with what is wanted, for all apps at once
description:
  - Says for each app which release its inputs make, whether that has to be built, and whether it takes a migration, a
    switch to the other slot or a reload until it serves with the wanted configuration.
  - It changes nothing. Tasks with M(slipway.asgi.release) then run only for apps that have work to do.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description:
      - The apps, as role C(slipway.asgi.app) takes them in C(app_apps).
    type: list
    elements: dict
    required: true
  files:
    description: The files of a slot's configuration, as for M(slipway.asgi.release).
    type: list
    elements: dict
    required: true
  requirements:
    description: The role's files with the hashed requirements of the servers; C({server}) is the name of one.
    type: str
    required: true
  known:
    description: The names of all apps of the host, where O(apps) are not all.
    type: list
    elements: str
    default: []
  secrets:
    description: For each app the SHA-256 of its secret files by their paths; made from the apps themselves.
    type: dict
    default: {}
  credentials:
    description: For each app its C(source.key) or C(source.token), by these names; looked up where the app says.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: It only reads; in check mode, what a bare host cannot tell yet counts as work to do.
  diff_mode:
    support: full
    description: Shows release, slot and configuration of each app before and after.
"""

EXAMPLES = r"""
- name: Compare what is live with what is wanted
  slipway.asgi.release_plan:
    apps: "{{ app_apps }}"
    files: "{{ __app_files }}"
    requirements: "server/{server}.txt"
  register: __app_plan
"""

RETURN = r"""
apps:
  description: The apps by name, with their release and its pinned source, and the plan for each.
  returned: always
  type: dict
  sample:
    shop:
      name: shop
      release: 3f9a1c20b7de
      plan:
        slot: blue
        live: 91bd02ac44f1
        live_slot: green
        build: true
        migrate: true
        switch: [release 91bd02ac44f1 is live]
        reload: []
        tidy: []
build:
  description: The names of the apps whose release has to be built.
  returned: always
  type: list
  elements: str
migrate:
  description: The names of the apps whose migration has to run on this host.
  returned: always
  type: list
  elements: str
live:
  description: The names of the apps whose release has to go live.
  returned: always
  type: list
  elements: str
reload:
  description: The names of the apps of which only the server's settings differ.
  returned: always
  type: list
  elements: str
orphans:
  description: The names of apps that are live on the host and not among O(apps).
  returned: always
  type: list
  elements: str
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File
from ansible_collections.slipway.asgi.plugins.module_utils.git import Repository
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd
from ansible_collections.slipway.asgi.plugins.module_utils.slots import Slots, Work, difference
from ansible_collections.slipway.asgi.plugins.module_utils.wanted import (
    APP_OPTIONS,
    fingerprints_of,
    inputs_of,
)

# The release that a bare host cannot name yet, in check mode.
UNKNOWN = "unknown"
# git ls-remote waits for the network, so the apps ask at the same time, but not all of twenty.
ASKING = 8


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "dict", "required": True, "options": APP_OPTIONS},
            "sets": {"type": "dict", "required": True},
            "known": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    apps, secrets, credentials = (module.params[name] for name in ("apps", "secrets", "credentials"))
    systemd = Systemd()
    layouts = [Layout(app["name"]) for app in apps]
    units = [layout.unit(slot, kind) for layout in layouts for slot in SLOTS for kind in ("service", "socket")]
    with ThreadPoolExecutor(ASKING) as pool:
        logins = [credentials.get(app["name"], {}) for app in apps]
        identities = list(pool.map(partial(identify, module.params["sets"]), apps, logins))
    failures = [
        f"{app['name']}: {found}" for app, found in zip(apps, identities, strict=True) if isinstance(found, Failed)
    ]
    failures += [text for app in apps for text in missing(app)]
    if failures and not module.check_mode:
        module.fail_json(msg="\n".join(["Nothing that serves was changed.", *failures]))
    state = systemd.show(*units) if units else {}
    plans = [
        plan(app, secrets.get(app["name"], {}), UNKNOWN if isinstance(identity, Failed) else identity, slots, state)
        for app, slots, identity in zip(apps, [Slots(layout, systemd) for layout in layouts], identities, strict=True)
    ]
    module.exit_json(
        changed=any(entry["switch"] or entry["reload"] or entry["tidy"] or entry["build"] for entry in plans),
        plans=plans,
        orphans=orphans(module.params["known"] or [app["name"] for app in apps]),
        diff=[entry for app, found in zip(apps, plans, strict=True) for entry in differences(app, found)],
    )


def orphans(known: Iterable[str], root: Path = Path("/")) -> list[str]:
    """The apps that are live on this host and of which the caller does not know."""
    return sorted({link.parent.name for link in (root / "srv/slipway").glob("*/live")} - set(known))


def identify(sets: dict[str, str], app: dict[str, Any], credentials: dict[str, str]) -> str | Failed:
    """The id of the release that an app's inputs make, or why the host cannot tell; pins a git version to a commit."""
    try:
        source = app["source"]
        if source.get("git"):
            source["called"] = source["version"]
            source["version"] = Repository(app["name"], source, credentials).commit(source["version"])
        return inputs_of(app, sets[app["server"]]).identify()
    except Failed as error:
        return error


def missing(app: dict[str, Any]) -> list[str]:
    """The directories that an app wants to write to and that this host does not have, a line for each."""
    return [
        f"{app['name']}: sandbox.writable has {path}: there is no such directory on this host; make it, and let "
        f"{Layout(app['name']).user} write to it"
        for path in (app["sandbox"] or {}).get("writable", [])
        if not Path(path).is_dir()
    ]


def plan(
    app: dict[str, Any], secrets: dict[str, str], identity: str, slots: Slots, state: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """What there is to do for one app, whose secret files are known by their SHA-256."""
    layout = slots.layout
    live = layout.live_slot()
    try:
        work = slots.work(identity, fingerprints_of(app, secrets), state)
    except LookupError as error:
        work = Work(switch=[str(error)])
    build = bool(work.switch and layout.damage(identity))
    fresh = live is None or layout.release_in(live) != identity
    return {
        "name": app["name"],
        "release": identity,
        "source": {key: value for key, value in app["source"].items() if value},
        "slot": slots.idle() if work.switch else live,
        "live": layout.release_in(live) if live else None,
        "live_slot": live,
        "build": build,
        "migrate": app["migrate"] and bool(work.switch) and (fresh or "migrate differs" in work.switch),
        "switch": work.switch,
        "reload": [] if work.switch else work.reload,
        "tidy": [] if work.switch else work.tidy,
    }


def differences(app: dict[str, Any], found: dict[str, Any]) -> list[dict[str, str]]:
    """The diff of one app: its release and slot, and its configuration without the secrets."""
    if not (found["switch"] or found["reload"]):
        return []
    slots = Slots(Layout(app["name"]), Systemd())
    return difference(slots, found["release"], found["slot"], [File.of(file) for file in app["files"]])


if __name__ == "__main__":
    main()
