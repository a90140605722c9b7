#!/usr/bin/python
"""One release of one app, built, migrated, switched to or reloaded."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Build a release of an app and give it the traffic, without a dropped request
description:
  - A release is one immutable directory with an app's source and its own virtual environment. An app has two slots,
    blue and green; one is live. A new release is put into the idle slot, started and probed there, and gets the
    traffic by a single rename. The old slot then finishes what it has and stops by itself.
  - What is on disk is the only state. Whenever a run is cut off, one complete release is live with its own
    configuration, and the same run again finishes the work.
  - A release that cannot be built, migrated, started or probed is refused with the app's last journal lines. The
    release before serves on and never notices.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  app:
    description:
      - The app, as role C(slipway.asgi.app) takes it in C(app_apps).
    type: dict
    required: true
    suboptions:
      name:
        description: The app's name.
        type: str
        required: true
      release:
        description: The id of the release, as M(slipway.asgi.release_plan) returned it.
        type: str
      source:
        description: Where the app comes from; a O(app.source.path) of the controller or a O(app.source.git) repository.
        type: dict
        required: true
        suboptions:
          path:
            description: A directory on the controller.
            type: str
          digest:
            description: The digest of the files of O(app.source.path); computed where it is not given.
            type: str
          git:
            description: The address of a repository, which the host fetches from.
            type: str
          version:
            description: A tag, a branch or a full commit.
            type: str
            default: HEAD
          username:
            description: The user whose token opens the repository over https.
            type: str
          host_key:
            description: The keys of the ssh server, as lines of known_hosts.
            type: str
      archive:
        description: A tar file on the host with the files of O(app.source.path); sent where it is not given.
        type: path
      python:
        description: V(system) for the distribution's Python, or a version.
        type: str
        default: system
      extras:
        description: The project's extras that are installed.
        type: list
        elements: str
        default: []
      groups:
        description: The project's dependency groups that are installed.
        type: list
        elements: str
        default: []
      unlocked:
        description: Whether a project without a lock may be installed.
        type: bool
        default: false
      index:
        description: A package index that is asked before the public one.
        type: dict
        suboptions:
          url:
            description: Its address.
            type: str
            required: true
          username:
            description: The user there.
            type: str
      packages:
        description: The distribution's packages without which the release is not built.
        type: list
        elements: str
        default: []
      build:
        description: A command that is run in the source, once the virtual environment is there.
        type: str
        default: ""
      files:
        description: The files of the slot's configuration, rendered.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: The path within the configuration.
            type: str
            required: true
          content:
            description: The content.
            type: str
            required: true
          mode:
            description: The octal permission bits.
            type: str
            default: "0644"
      migrate:
        description: Whether this host is the one to migrate.
        type: bool
        default: false
      domains:
        description: The app's domains; it is probed under the first.
        type: list
        elements: str
        required: true
      ready_path:
        description: The path that the app answers with a status from 200 to 399 when it is ready.
        type: str
        default: /
      ready_seconds:
        description: How many seconds the app has to become ready.
        type: int
        default: 60
      keep_releases:
        description: How many releases are kept; what a slot holds always stays.
        type: int
        default: 5
  state:
    description:
      - V(present) builds the release. Nothing that serves changes.
      - V(migrated) also puts it into the idle slot and runs the app's migration there.
      - V(live) starts it in the idle slot, probes it, switches to it, verifies it as a client would, and retires the
        slot that was live. It has to be built.
      - V(previous) goes back to the release that was live before, by the same switch, with the configuration that it
        ran with and the secrets of today. Done again, it goes back further.
      - V(reloaded) hands the live slot a new C(gunicorn.conf.py) by SIGHUP, after the unit's own check of it.
    type: str
    choices: [present, migrated, live, reloaded, previous]
    default: live
  files:
    description: The templates of the slot's configuration, rendered for the app.
    type: list
    elements: dict
  server:
    description: The role's file with the hashed requirements of the server, for apps that lock none.
    type: str
    default: ""
  secrets:
    description:
      - The values of the app's secrets by name, which reach it as systemd credentials; looked up where the app says.
    type: dict
    default: {}
  credentials:
    description:
      - The values of C(source.key), C(source.token) and C(index.password) by these names, with O(state=present); looked
        up where the app says. They reach git and uv alone, and no disk.
    type: dict
    default: {}
  front:
    description: What stands before the app.
    type: dict
    default: {}
    suboptions:
      user:
        description: The user as whom it connects to the app's socket.
        type: str
        default: www-data
      port:
        description: The port on which it answers HTTPS on the host.
        type: int
        default: 443
attributes:
  check_mode:
    support: full
    description: Says what would change; what is live is compared as in a real run.
  diff_mode:
    support: none
    description: M(slipway.asgi.release_plan) shows it, for all apps at once.
seealso:
  - module: slipway.asgi.release_plan
"""

EXAMPLES = r"""
- name: Switch to the releases
  slipway.asgi.release:
    app: "{{ item }}"
    state: live
    files: "{{ __app_files }}"
    server: server/requirements.txt
  loop: "{{ __app_switch }}"
  loop_control:
    label: "{{ item.name }} {{ item.release }}"
"""

RETURN = r"""
release:
  description: The release that is live now.
  returned: always
  type: str
  sample: 3f9a1c20b7de
slot:
  description: The slot that is live now.
  returned: always
  type: str
  sample: green
previous:
  description: The release that was live before and can be gone back to.
  returned: always
  type: str
  sample: 91bd02ac44f1
reasons:
  description: Why there was work to do.
  returned: with O(state=live) and O(state=reloaded)
  type: list
  elements: str
  sample: [release 91bd02ac44f1 is live]
removed:
  description: The releases that were removed because newer ones are kept.
  returned: with O(state=live)
  type: list
  elements: str
timings:
  description: How many seconds each step took.
  returned: always
  type: dict
  sample: {stage: 0.31, probe: 1.42, switch: 0.001, verify: 0.06}
"""

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, Fingerprint
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd
from ansible_collections.slipway.asgi.plugins.module_utils.releases import build, retire
from ansible_collections.slipway.asgi.plugins.module_utils.slots import WATCH_SECONDS, Front, Slots, locked, summary
from ansible_collections.slipway.asgi.plugins.module_utils.wanted import (
    APP_OPTIONS,
    FRONT_OPTIONS,
    files_of,
    inputs_of,
    probe_of,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "dict", "required": True, "options": APP_OPTIONS},
            "state": {
                "type": "str",
                "choices": ["present", "migrated", "live", "reloaded", "previous"],
                "default": "live",
            },
            "server": {"type": "str", "default": ""},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "front": {"type": "dict", "default": {}, "options": FRONT_OPTIONS},
        },
        supports_check_mode=True,
    )
    app = {**module.params["app"], **{key: module.params[key] for key in ("secrets", "credentials", "server")}}
    slots = Slots(Layout(app["name"]), Systemd(), Front(**module.params["front"]))
    if module.check_mode:
        module.exit_json(changed=True, **summary(slots), timings={})
    try:
        with locked(slots.layout):
            result = STATES[module.params["state"]](app, slots)
    except (Failed, LookupError, OSError) as error:
        module.fail_json(msg=f"{app['name']}: {error}", **summary(slots), timings=slots.timings)
    module.exit_json(**result, **summary(slots), timings=slots.timings)


def present(app: dict[str, Any], slots: Slots) -> dict[str, Any]:
    """Build the release where it is not complete yet."""
    if slots.layout.is_complete(app["release"]):
        return {"changed": False}
    started = time.monotonic()
    try:
        build(slots.layout, app["release"], inputs_of(app, app["server"]), app["archive"], app["credentials"])
    except Failed as error:
        raise Failed(f"the release cannot be built, and what served still does: {error}") from error
    slots.timings["build"] = round(time.monotonic() - started, 3)
    return {"changed": True}


def migrated(app: dict[str, Any], slots: Slots) -> dict[str, Any]:
    """Run the migration with the new release, before it gets any traffic."""
    slots.migrate(slots.stage(app["release"], files_of(app, app["secrets"])))
    return {"changed": True}


def live(app: dict[str, Any], slots: Slots) -> dict[str, Any]:
    """Bring the release into the traffic, whatever is left to do for that."""
    layout, release = slots.layout, app["release"]
    files = files_of(app, app["secrets"])
    units = [layout.unit(slot, kind) for slot in SLOTS for kind in ("service", "socket")]
    work = slots.work(release, {file.path: Fingerprint.of(file) for file in files}, slots.systemd.show(*units))
    slots.remember()
    if work.switch or work.reload:
        if not layout.is_complete(release):
            raise Failed(f"release {release} is not built on this host; state: present builds it")
        _take_over(slots, release, files, app)
    elif work.tidy:
        slots.tidy(probe_of(app))
    slots.remember()
    removed = retire(layout, app["keep_releases"])
    slots.prune()
    return {"changed": bool(work.reasons or removed), "reasons": work.reasons, "removed": removed}


def previous(app: dict[str, Any], slots: Slots) -> dict[str, Any]:
    """Go back to what was live before, with the configuration that it ran with and the secrets of today."""
    entry = slots.before()
    if entry is None:
        raise Failed("there is nothing to go back to: no other release was live on this host, or it is gone")
    # It has served before: one look is enough, and going back is in a hurry.
    _take_over(slots, entry["release"], slots.recall(entry), app, watch=0)
    slots.forget(entry)
    slots.remember()
    return {"changed": True, "reasons": ["going back was asked for"]}


def _take_over(
    slots: Slots, release: str, files: Sequence[File], app: dict[str, Any], watch: float = WATCH_SECONDS
) -> None:
    """Stage, probe, switch, verify, retire."""
    before = slots.layout.live_slot()
    slot = slots.stage(release, files)
    slots.start_and_probe(slot, release, probe_of(app))
    slots.switch(slot, release, probe_of(app), watch)
    if before:
        slots.retire(before)


def reloaded(app: dict[str, Any], slots: Slots) -> dict[str, Any]:
    """Let the live slot take up its server's settings by SIGHUP."""
    slots.reload(files_of(app, app["secrets"]), probe_of(app))
    slots.remember(reloaded=True)
    slots.prune()
    return {"changed": True, "reasons": ["the server's settings differ"]}


STATES = {"present": present, "migrated": migrated, "live": live, "reloaded": reloaded, "previous": previous}

if __name__ == "__main__":
    main()
