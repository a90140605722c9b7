#!/usr/bin/python
"""One release of one app, built, migrated, switched to or reloaded."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Build a release of an app and give it the traffic, without a dropped request
description:
  - A release is one immutable directory with an app's source and its own virtual environment. An app has two slots,
    blue and green, each a systemd socket and service with a configuration of its own; one of them is live.
  - A new release is put into the idle slot (stage), started and asked there over its own socket (probe), and gets the
    traffic by the rename of one link (switch). Then it is asked as nginx's own user and over HTTPS (verify), and the
    slot that was live answers what it has accepted, keeps its WebSockets for as long as the app lets it, and stops by
    itself (retire).
  - A release that cannot be built, migrated, started or probed is refused with the app's last journal lines, and the
    one before serves on and never notices. One that fails right after the switch is taken back.
  - What is on disk is the only state. Whenever a run is cut off, one complete release is live with its own
    configuration, and the same run again finishes the work.
requirements:
  - On the host, Python's standard library, systemd 252 or newer, and for O(state=present) uv in C(/opt/slipway/uv).
notes:
  - It has to run as root. Releases belong to root, and are built by the user C(slipway-build) in a sandbox.
  - One run at a time acts on an app of a host. Another one waits for half a minute, and then fails.
  - Role C(slipway.asgi.app) calls it for what M(slipway.asgi.release_plan) found to be different.
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
        description:
          - The id of the release, as M(slipway.asgi.release_plan) returned it.
          - With O(state=previous), the one to go back to, as M(slipway.asgi.release_info) lists it; the last that was
            live before, where it is not given.
        type: str
      source:
        description: Where the app comes from; a O(app.source.path) of the controller or a O(app.source.git) repository.
        type: dict
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
          called:
            description: The version as a user named it, for the list of releases.
            type: str
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
      server:
        description: The name of the server, as the role knows it.
        type: str
        default: gunicorn
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
      sandbox:
        description: What the app needs of the host beyond what every app has.
        type: dict
        suboptions:
          writable:
            description: The directories that it may write to; they have to be there.
            type: list
            elements: path
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
        default: []
      ready_path:
        description: The path that the app answers with a status from 200 to 399 when it is ready.
        type: str
        default: /
      ready_seconds:
        description: How many seconds the app has to become ready.
        type: int
        default: 60
      keep_releases:
        description: How many releases are kept; what a slot holds and what a rollback goes back to always stays.
        type: int
        default: 5
  state:
    description:
      - V(present) builds O(app.release) from O(app.source), where it is not complete yet. Nothing that serves changes.
      - V(migrated) puts it into the idle slot and runs the app's C(migrate) there, before any traffic.
      - V(live) switches to O(app.release), with O(files) as its configuration, and runs the app's C(after_switch).
        Where it is live already, nothing is done, unless an earlier run has left something to finish.
      - V(previous) goes back to the release that was live before, by the same switch, with the configuration that it
        ran with and the secrets of today, and runs that configuration's C(after_rollback). It does not wait for a slot
        that still drains. Done again, it goes back further.
      - V(reloaded) hands the live slot a new C(gunicorn.conf.py) by SIGHUP, after the unit's own check of it. A server
        that knows no reload is started anew in the other slot, by a switch.
      - V(absent) stops the app and removes its releases, configuration and units. Its data and its user stay, unless
        O(data) says otherwise. Only O(app.name) is needed.
    type: str
    choices: [present, migrated, live, reloaded, previous, absent]
    default: live
  data:
    description: Whether O(state=absent) removes what the app has written, in C(/var/lib/slipway), and its user.
    type: bool
    default: false
  files:
    description: The templates of the slot's configuration, rendered for the app.
    type: list
    elements: dict
  requirements:
    description:
      - The role's file with the hashed requirements of the server, for apps that lock none; C({server}) is its name.
    type: str
    default: ""
  secrets:
    description:
      - The values of the app's secrets by name, which reach it as systemd credentials; looked up where the app says.
    type: dict
    default: {}
  secret_environment:
    description:
      - The same for those that it finds in its environment.
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
    description: Says what would change and why; what is live is compared as in a real run.
  diff_mode:
    support: full
    description: Shows release, slot and configuration before and after, without the secrets.
seealso:
  - module: slipway.asgi.release_plan
  - module: slipway.asgi.release_info
"""

EXAMPLES = r"""
- name: Compare what is live with what is wanted
  slipway.asgi.release_plan:
    apps: "{{ app_apps }}"
    files: "{{ __app_files }}"
    requirements: "server/{server}.txt"
  register: plan

- name: Build the releases that are not there yet
  slipway.asgi.release:
    app: "{{ plan.apps[item] }}"
    state: present
    requirements: "server/{server}.txt"
  loop: "{{ plan.build }}"

- name: Switch to them, without a dropped request
  slipway.asgi.release:
    app: "{{ plan.apps[item] }}"
    state: live
    files: "{{ __app_files }}"
  loop: "{{ plan.live }}"

- name: Go back to what was live before
  slipway.asgi.release:
    app: {name: shop, domains: [shop.example.com], ready_path: /ready}
    state: previous

- name: Go back to a release that release_info lists
  slipway.asgi.release:
    app: {name: shop, release: 91bd02ac44f1, domains: [shop.example.com], ready_path: /ready}
    state: previous

- name: Take an app off the host, and keep its data
  slipway.asgi.release:
    app: {name: shop}
    state: absent
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
  description: The release that was live before it; pages of that one still find their static files.
  returned: always
  type: str
  sample: 91bd02ac44f1
probed:
  description: What answered well, several times in a row, before and after the switch.
  returned: always
  type: list
  elements: str
  sample:
    - /ready over /run/slipway/shop-green.sock
    - /ready as www-data
    - /ready at https://shop.example.com
reasons:
  description: Why there was work to do.
  returned: with O(state=live), O(state=reloaded) and O(state=previous)
  type: list
  elements: str
  sample: [release 91bd02ac44f1 is live]
removed:
  description: The releases that were removed because newer ones are kept.
  returned: with O(state=live)
  type: list
  elements: str
size:
  description: The C(workers) and C(threads) that the live server has started with, and C(why) so many.
  returned: where something is live
  type: dict
  sample: {workers: 2, threads: 1, why: one for each of 2 CPUs}
timings:
  description: How many seconds each step took, in the order of the steps; a step that was not needed is not there.
  returned: always
  type: dict
  sample: {stage: 0.31, probe: 1.42, switch: 0.001, verify: 1.06}
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.generations import Fingerprint
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Failed, Layout, Systemd
from ansible_collections.slipway.asgi.plugins.module_utils.releases import build, retire
from ansible_collections.slipway.asgi.plugins.module_utils.slots import (
    Front,
    Slots,
    TakenBack,
    difference,
    locked,
    summary,
)
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
            "state": {"type": "str", "choices": list(STATES), "default": "live"},
            "requirements": {"type": "str", "default": ""},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "secret_environment": {"type": "dict", "default": {}, "no_log": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "front": {"type": "dict", "default": {}, "options": FRONT_OPTIONS},
            "data": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = ("secrets", "secret_environment", "credentials", "requirements", "data")
    app = {**module.params["app"], **{key: module.params[key] for key in given}}
    try:
        layout = Layout(app["name"])
    except Failed as error:
        module.fail_json(msg=str(error))
    slots = Slots(layout, Systemd(), Front(**module.params["front"]))
    state = STATES[module.params["state"]]
    try:
        with contextlib.nullcontext() if module.check_mode else locked(slots.layout):
            result = state(app, slots, module.check_mode)
    except (Failed, LookupError) as error:
        module.fail_json(msg=f"{app['name']}: {error}", **summary(slots))
    except OSError as error:
        # A disk that is full, for one, at whatever step.
        module.fail_json(msg=f"{app['name']}: {error}; {slots.standing()}", **summary(slots))
    module.exit_json(**result, **summary(slots))


def present(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Build the release where it is not complete yet."""
    if not slots.layout.damage(app["release"]):
        return {"changed": False}
    if not check:
        # Not after the build, which takes its time.
        slots.recover()
        started = time.monotonic()
        inputs = inputs_of(app, app["requirements"])
        try:
            build(slots.layout, app["release"], inputs, app["archive"], app["credentials"])
        except (Failed, OSError) as error:
            raise Failed(f"the release cannot be built; {slots.still()}: {error}") from error
        slots.timings["build"] = round(time.monotonic() - started, 3)
    return {"changed": True}


def migrated(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Run the migration with the new release, before it gets any traffic."""
    if not check:
        _settle(app, slots)
        slots.migrate(slots.stage(app["release"], files_of(app)))
    return {"changed": True}


def live(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Bring the release into the traffic, whatever is left to do for that."""
    layout, release = slots.layout, app["release"]
    files = files_of(app)
    units = [layout.unit(slot, kind) for slot in SLOTS for kind in ("service", "socket")]
    if not check:
        _settle(app, slots)
    work = slots.work(release, {file.path: Fingerprint.of(file) for file in files}, slots.systemd.show(*units))
    switching = bool(work.switch or work.reload)
    result = {
        "changed": bool(work.reasons),
        "reasons": work.reasons,
        "removed": [],
        "diff": difference(slots, release, slots.idle(), files) if switching else [],
    }
    if check:
        return result
    slots.history.remember()
    if switching:
        if not layout.is_complete(release):
            raise Failed(f"release {release} is not built on this host; state: present builds it")
        slots.take_over(release, files, probe_of(app))
    elif work.tidy:
        slots.tidy()
    slots.history.remember()
    removed = retire(layout, app["keep_releases"], slots.held(), slots.systemd.remove)
    slots.prune()
    return {**result, "changed": bool(work.reasons or removed), "removed": removed}


def _settle(app: dict[str, Any], slots: Slots) -> None:
    """Verify what an earlier run has switched to; that it is taken back matters where the same is wanted again."""
    try:
        slots.settle(probe_of(app))
    except TakenBack as error:
        if error.release == app["release"]:
            raise


def previous(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Go back to what was live before, with the configuration that it ran with and the secrets of today."""
    if not check:
        try:
            switch = slots.settle(probe_of(app))
        except TakenBack as error:
            return {"changed": True, "reasons": [str(error)], "diff": []}
        if switch and switch.depth is not None:
            slots.finish(switch)
            return {"changed": True, "reasons": ["going back to it was cut off"], "diff": []}
    wanted = app["release"] or ""
    entry = slots.history.before(wanted)
    if entry is None:
        what = f"release {wanted}" if wanted else "no other release"
        raise Failed(
            f"there is nothing to go back to: {what} was {'never ' if wanted else ''}live on this host, or it is gone; "
            "playbooks/releases.yml lists what there is"
        )
    if damage := slots.layout.damage(entry.release):
        raise Failed(
            f"release {entry.release} cannot be gone back to: {damage}; a deploy of its version builds it anew"
        )
    files = slots.recall(entry)
    diff = difference(slots, entry.release, slots.idle(), files)
    if not check:
        slots.history.remember()
        slots.take_over(entry.release, files, probe_of(app), back_to=entry)
    return {"changed": True, "reasons": [f"going back to release {entry.release}"], "diff": diff}


def reloaded(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Let the live slot take up its server's settings by SIGHUP."""
    if not check:
        slots.settle(probe_of(app))
        if slots.can_reload():
            slots.reload(files_of(app), probe_of(app))
            slots.history.remember(reloaded=True)
        else:
            slots.renew(probe_of(app))
        slots.prune()
    return {"changed": True, "reasons": ["the server's settings differ"]}


def absent(app: dict[str, Any], slots: Slots, check: bool) -> dict[str, Any]:
    """Take the app off the host, and its data only where that is said."""
    there = slots.is_there(app["data"])
    diff = difference(slots, None, None, []) if there else []
    if not check:
        slots.remove(app["data"])
    return {"changed": there, "diff": diff}


STATES: dict[str, Callable[[dict[str, Any], Slots, bool], dict[str, Any]]] = {
    "present": present,
    "migrated": migrated,
    "live": live,
    "reloaded": reloaded,
    "previous": previous,
    "absent": absent,
}

if __name__ == "__main__":
    main()
