#!/usr/bin/python
"""What a role has made on a host, taken away again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removal
short_description: Take away what a role has made on a host
description:
  - Takes away units, users, files and packages in one call, and puts back what was there before. What is not there is
    gone already, so that a run that was cut off is finished by the next one.
  - The order is that of the options.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  units:
    description: Shell patterns of units in C(/etc/systemd/system), which are stopped, disabled and deleted.
    type: list
    elements: str
    default: []
  restore:
    description: What M(slipway.asgi.config_set) has kept, and where it belongs.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it was.
        type: path
        required: true
      kept:
        description: Where it lies now.
        type: path
        required: true
      replace:
        description: Whether it takes the place of what is there; if not, and something is, that stays.
        type: bool
        default: true
  accounts:
    description: Shell patterns of files of sysusers.d, which go with the users that they make.
    type: list
    elements: path
    default: []
  groups:
    description: Groups of no user's.
    type: list
    elements: str
    default: []
  paths:
    description: Shell patterns of files, links and directories.
    type: list
    elements: path
    default: []
  packages:
    description:
      - Shell patterns of packages, which are purged with their configuration. Only those are meant that came with an
        installation of the role C(slipway.asgi.host), and of these all stay that something else has come to need.
    type: list
    elements: str
    default: []
  apply:
    description: A command that makes the host go by what is left, run when all else is done. It needs O(pending).
    type: str
  pending:
    description: A file that exists until O(apply) has succeeded.
    type: path
  directories:
    description: Directories that go if they are empty then, and no package has brought them.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would go.
  diff_mode:
    support: full
    description: Shows what goes, a line each.
"""

EXAMPLES = r"""
- name: Take the firewall away
  slipway.asgi.removal:
    units: [slipway-firewall.service]
    paths: [/etc/slipway/firewall.nft]

- name: Give nginx its own configuration back
  slipway.asgi.removal:
    restore:
      - {path: /etc/nginx/nginx.conf, kept: /etc/nginx/nginx.conf.before-slipway}
    paths: [/etc/nginx/slipway]
    apply: systemctl reload nginx
    pending: /var/lib/slipway/pending/remove-nginx

- name: Purge the packages that came with Slipway
  slipway.asgi.removal:
    packages: ["*"]
"""

RETURN = r"""
removed:
  description: What went, or would go.
  returned: always
  type: list
  elements: str
  sample: [unit slipway-firewall.service, path /etc/slipway/firewall.nft, package nftables]
needed:
  description: The packages that came with Slipway and stay, since something else needs them.
  returned: always
  type: list
  elements: str
  sample: [git]
"""

import glob
import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils import packages
from ansible_collections.slipway.asgi.plugins.module_utils.generations import make_directory, sync_directory
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, Systemd, run

UNITS = Path("/etc/systemd/system")


def main() -> None:
    """Run the module."""
    place = {
        "path": {"type": "path", "required": True},
        "kept": {"type": "path", "required": True},
        "replace": {"type": "bool", "default": True},
    }
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "restore": {"type": "list", "elements": "dict", "default": [], "options": place},
            "accounts": {"type": "list", "elements": "path", "default": []},
            "groups": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "apply": {"type": "str"},
            "pending": {"type": "path"},
            "directories": {"type": "list", "elements": "path", "default": []},
        },
        required_by={"apply": ["pending"]},
        supports_check_mode=True,
    )
    try:
        result = remove(module.params, module.check_mode, Systemd())
    except (Failed, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def remove(options: dict[str, Any], check: bool, systemd: Systemd) -> dict[str, Any]:
    """Take it all away.

    Args:
        options: the module's options.
        check: say only what would go.
        systemd: the service manager.

    Returns:
        The module's result.

    Raises:
        Failed: something could not be taken away; what comes after it in the order is still there.
    """
    units = _found(UNITS / pattern for pattern in options["units"])
    restored = [
        (Path(entry["kept"]), Path(entry["path"]))
        for entry in options["restore"]
        if os.path.lexists(entry["kept"]) and (entry["replace"] or not os.path.lexists(entry["path"]))
    ]
    accounts = _found(map(Path, options["accounts"]))
    users = [user for account in accounts for user in _users_of(account)]
    groups = [group for group in options["groups"] if _there(grp.getgrnam, group)]
    paths = _found(map(Path, options["paths"]))
    going, needed = packages.removable(options["packages"]) if options["packages"] else ([], [])
    directories = [Path(path) for path in options["directories"]]
    removed = [
        *(f"unit {path.name}" for path in units),
        *(f"Slipway's {target}" for _, target in restored),
        *(f"user {user}" for user in users),
        *(f"group {group}" for group in groups),
        *(f"path {path}" for path in [*accounts, *paths]),
        *(f"package {name}" for name in going),
        *(f"path {path}" for path in directories if _is_left(path)),
    ]
    marker = Path(options["pending"]) if options["pending"] else None
    unfinished = marker is not None and marker.exists()
    result = {
        "changed": bool(removed) or unfinished,
        "removed": removed,
        "needed": needed,
        "diff": {"before": "".join(f"{line}\n" for line in removed), "after": ""},
    }
    if check or not result["changed"]:
        return result
    if marker:
        make_directory(marker.parent)
        marker.touch()
    if units:
        _remove_units(units, systemd)
    for source, target in restored:
        source.replace(target)
        sync_directory(target.parent)
    for user in users:
        run(["userdel", user])
    for group in [*users, *groups]:
        # A user's goes with it, unless somebody else has joined it.
        if _there(grp.getgrnam, group):
            run(["groupdel", group])
    for path in [*accounts, *paths]:
        _remove(path)
    if going:
        packages.purge(going)
    if "*" in options["packages"]:
        for record in (packages.RECORD, packages.BEFORE):
            record.unlink(missing_ok=True)
    if options["apply"]:
        run(shlex.split(options["apply"]))
    if marker:
        marker.unlink(missing_ok=True)
    for directory in filter(_is_left, directories):
        directory.rmdir()
    return result


def _found(patterns: Any) -> list[Path]:
    return [Path(path) for pattern in patterns for path in sorted(glob.glob(str(pattern)))]


def _remove_units(paths: Sequence[Path], systemd: Systemd) -> None:
    names = [path.name for path in paths]
    systemd.call("stop", *names)
    systemd.call("disable", *names)
    systemd.forget_failures(names)
    for path in paths:
        _remove(path)
    for wanting in filter(_is_left, UNITS.glob("*.wants")):
        wanting.rmdir()
    systemd.call("daemon-reload")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_left(directory: Path) -> bool:
    """Whether a directory is there with nothing in it, and is no package's."""
    if not directory.is_dir() or any(directory.iterdir()):
        return False
    return subprocess.run(["dpkg-query", "--search", directory], check=False, capture_output=True).returncode != 0


def _users_of(account: Path) -> list[str]:
    """The users that a file of sysusers.d makes, as far as there are any."""
    named = re.findall(r"^u\S*\s+(\S+)", account.read_text(), re.MULTILINE)
    return [user for user in named if _there(pwd.getpwnam, user)]


def _there(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    main()
