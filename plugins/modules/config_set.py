#!/usr/bin/python
"""A set of configuration files, changed as one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_set
short_description: Put a set of configuration files in place as one transaction
description:
  - Renders a whole set of files on the controller and writes it in a single call, where a loop of
    M(ansible.builtin.template) would cost a round trip and more for each file.
  - With O(store), the set is a directory that changes with one rename. The new generation is validated as a whole
    before it becomes current; if it is refused, what is in force stays as it was, on disk and in memory.
  - A file with an absolute path, or any without O(store), is replaced at that path with one rename, after the set.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  store:
    description:
      - The directory of the set. Its generations lie in C(generations/), and the link C(current) names the one in
        force; files refer to each other by the path of that link. The generation before is kept.
    type: path
  service:
    description:
      - A service that reads the set, to be told in the same call whether it runs now and at boot; asking for that alone
        would be another round trip.
    type: str
  pending:
    description:
      - A file that exists from a change until the set has been applied and names what changed, so that a run that was
        cut off in between is finished by the next one. O(apply) removes it when it has succeeded; without O(apply), the
        handler that applies the set does.
    type: path
  files:
    description: The whole set. With O(store), a file that is not listed is not in the new generation.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Where the file lies, relative to the generation of O(store), or absolute. With O(files[].each), a
            key of the element may stand in it in braces, as in C(sites/{name}.conf).
        type: str
        required: true
      template:
        description: The template of the calling role that makes the file.
        type: str
      src:
        description: The file of the calling role that is copied as it is.
        type: str
      content:
        description: The content itself.
        type: str
      each:
        description: A list; the entry stands for one file per element, which the template sees as C(item).
        type: list
        elements: dict
      mode:
        description: The octal permission bits.
        type: str
        default: "0644"
      owner:
        description: The user that owns the file.
        type: str
        default: root
      group:
        description: The group that owns the file.
        type: str
        default: root
      state:
        description: Whether the file is wanted. V(absent) is for absolute paths.
        type: str
        choices: [present, absent]
        default: present
      target:
        description: With V(absent), remove only a link, and only one to this.
        type: str
      keep:
        description:
          - Where to keep what lay at the absolute path before the first change, for M(slipway.asgi.removal). It is on
            the same file system.
        type: path
  validate:
    description:
      - A command that must succeed before anything of the set is put in place. C({root}) in it stands for a copy of the
        generation in which the files name each other by the copy's own path. Any output of C(systemd-analyze) is a
        failure; for other commands the exit status decides. Not run in check mode, where what an earlier task would
        have made may be missing.
    type: str
  apply:
    description: A command that makes the host take up the set, run after a change. It needs O(pending).
    type: str
  in_force:
    description:
      - A command that succeeds where the host goes by the set as it lies there. Where it does not, O(apply) is run
        though no file has changed. It is asked in check mode, too.
    type: str
  confirm:
    description:
      - For a change that could lock its author out. So many seconds the controller has to come back by a connection
        that is new, else the host undoes the change, also after a restart or when the controller is gone. A change that
        O(apply) fails for is undone as well.
      - O(apply) then has to suit both, the files being there and not; and only files with an absolute path are undone.
    type: int
attributes:
  check_mode:
    support: full
    description: Says which files would change.
  diff_mode:
    support: full
    description: Shows each file before and after.
"""

EXAMPLES = r"""
- name: Configure nginx as a whole
  slipway.asgi.config_set:
    store: /etc/nginx/slipway
    files:
      - {path: nginx.conf, template: nginx.conf.j2}
      - {path: "sites/{name}.conf", template: site.conf.j2, each: "{{ nginx_sites }}"}
    validate: nginx -t -q -c {root}/nginx.conf
    pending: /etc/nginx/slipway/pending
  notify: Reload nginx

- name: Raise the limits of the kernel
  slipway.asgi.config_set:
    files:
      - {path: /etc/sysctl.d/60-slipway.conf, template: sysctl.conf.j2}
    apply: sysctl --quiet --load /etc/sysctl.d/60-slipway.conf
    pending: /var/lib/slipway/pending/sysctl

- name: Let SSH take keys alone, unless that keeps us out
  slipway.asgi.config_set:
    files:
      - {path: /etc/ssh/sshd_config.d/10-keys.conf, content: "PasswordAuthentication no\n"}
    validate: /usr/sbin/sshd -t -f {root}/etc/ssh/sshd_config.d/10-keys.conf
    apply: systemctl reload ssh
    pending: /var/lib/slipway/pending/ssh
    confirm: 30
"""

RETURN = r"""
changed_files:
  description: The paths of the files that changed.
  returned: always
  type: list
  elements: str
  sample: [sites/shop.conf]
pending_files:
  description: These, and what an earlier run had changed that was cut off before the set was applied.
  returned: always
  type: list
  elements: str
  sample: [sites/shop.conf]
validated:
  description: Whether the command of O(validate) is on this host; false in check mode before it is installed.
  returned: with O(validate)
  type: bool
service_runs:
  description: Whether the service runs, and is enabled to run after a boot.
  returned: with O(service)
  type: bool
generation:
  description: The directory that is current now.
  returned: with O(store), outside of check mode
  type: str
  sample: /etc/nginx/slipway/generations/7
"""

import os
import shlex
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.generations import (
    File,
    Fingerprint,
    Generations,
    lies_at,
    make_directory,
    sync_directory,
    write,
)
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, alone
from ansible_collections.slipway.asgi.plugins.module_utils.way_back import WayBack


class Refused(Exception):
    """A set that its validator does not accept, or that could not be applied."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path"},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str"},
                    "mode": {"type": "str", "default": "0644"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "target": {"type": "str"},
                    "keep": {"type": "path"},
                },
                "required_if": [("state", "present", ["content"])],
            },
            "validate": {"type": "str"},
            "apply": {"type": "str"},
            "in_force": {"type": "str"},
            "confirm": {"type": "int"},
            "confirmed": {"type": "bool", "default": False},
            "pending": {"type": "path"},
            "service": {"type": "str"},
        },
        required_by={"apply": ["pending"], "in_force": ["apply"], "confirm": ["apply"]},
        supports_check_mode=True,
    )
    try:
        with alone(None if module.check_mode else module.params["pending"]):
            result = converge(module.params, check=module.check_mode)
    except (Refused, Failed, LookupError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def converge(options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Bring the set into force.

    Args:
        options: the module's options.
        check: say only what would change.

    Returns:
        The module's result.

    Raises:
        Refused: the set was not accepted; what was in force before still is.
    """
    store = options.get("store")
    way_back = _way_back(options)
    if way_back and not check and not options.get("confirmed"):
        way_back.settle()
    files = [File.of(entry) for entry in options["files"] if entry["state"] == "present"]
    inside = [file for file in files if store and not file.path.startswith("/")]
    outside = [file for file in files if file not in inside]
    absent = [Path(entry["path"]) for entry in options["files"] if entry["state"] == "absent" and _unwanted(entry)]
    marker = Path(options["pending"]) if options.get("pending") else None
    generations = Generations(Path(store) / "generations", Path(store) / "current") if store else None
    before = generations.before() if generations else {}
    before |= {file.path: _text(Path(file.path)) for file in outside if Path(file.path).is_file()}
    before |= {str(path): _text(path) for path in absent}
    staged = generations.differing({file.path: Fingerprint.of(file) for file in inside}) if generations else []
    written = [file for file in outside if not lies_at(file, Path(file.path))]
    changed = [*staged, *(file.path for file in written), *map(str, absent)]
    if way_back and options.get("confirmed"):
        return _confirmed(way_back, changed)
    drifted = bool(options.get("in_force")) and not _succeeds(shlex.split(options["in_force"]))
    pending = marker.read_text().splitlines() if marker and marker.exists() else []

    after = {file.path: file.content.decode() for file in files}
    result: dict[str, Any] = {
        "changed": bool(changed) or drifted or bool(marker and marker.exists()),
        "changed_files": changed,
        "pending_files": [*changed, *(path for path in pending if path not in changed)],
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": before.get(path, ""),
                "after": after.get(path, ""),
            }
            for path in changed
        ],
    }
    validate, apply = options.get("validate"), options.get("apply")
    if validate:
        result["validated"] = shutil.which(shlex.split(validate)[0]) is not None
    if options.get("service"):
        result["service_runs"] = _runs(options["service"])
    if check:
        return result

    if changed and validate:
        _validate(validate, inside or files, str(generations.link) if generations else "")
    if marker and result["changed"]:
        write(File(str(marker), "".join(f"{path}\n" for path in result["pending_files"]).encode()), marker)
    if way_back and result["changed"]:
        # Where the host did not go by the files, going back to them would be a change, too: then it is to none of them.
        touched = [*(Path(file.path) for file in (outside if drifted else written)), *absent]
        back = [path for path in touched if path.exists() and not drifted]
        way_back.prepare(back, [path for path in touched if path not in back])
    if changed:
        if generations and staged:
            generations.activate(generations.stage(inside))
            generations.prune(generations.newest(2))
        kept = {Path(entry["path"]): Path(entry["keep"]) for entry in options["files"] if entry.get("keep")}
        for path in [*(Path(file.path) for file in written), *absent]:
            if path in kept:
                _keep(path, kept[path])
        for path in absent:
            path.unlink()
            sync_directory(path.parent)
        for file in written:
            write(file, Path(file.path))
    if apply and result["changed"]:
        try:
            _run(shlex.split(apply))
        except Refused as error:
            if way_back:
                way_back.go()
                raise Refused(f"{error}\nThe change is undone.") from error
            raise
        if way_back:
            result["unconfirmed"] = True
        elif marker:
            marker.unlink(missing_ok=True)
    if generations:
        result["generation"] = str(generations.current())
    return result


def _way_back(options: dict[str, Any]) -> WayBack | None:
    if not options.get("confirm"):
        return None
    paths = [Path(entry["path"]) for entry in options["files"] if entry["path"].startswith("/")]
    return WayBack(Path(options["pending"]), shlex.split(options["apply"]), options["confirm"], paths)


def _confirmed(way_back: WayBack, differing: list[str]) -> dict[str, Any]:
    if not way_back.confirm() and differing:
        raise Refused(
            f"this host saw no new connection within {way_back.seconds} seconds of the change, and has undone it: "
            f"{', '.join(differing)}"
        )
    return {"changed": True}


def _runs(service: str) -> bool:
    """Whether a service is active and enabled."""
    return all(_succeeds(["systemctl", "--quiet", question, service]) for question in ("is-active", "is-enabled"))


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _unwanted(entry: dict[str, Any]) -> bool:
    """Whether what shall be absent is there, and is the link that is meant where one is."""
    path, target = Path(entry["path"]), entry.get("target")
    if target:
        return path.is_symlink() and os.readlink(path) == target
    return os.path.lexists(path)


def _keep(path: Path, kept: Path) -> None:
    """Keep what was there before the first of our own files, for a later removal."""
    if os.path.lexists(path) and not os.path.lexists(kept):
        make_directory(kept.parent)
        os.link(path, kept, follow_symlinks=False)
        sync_directory(kept.parent)


def _validate(command: str, files: list[File], link: str) -> None:
    with tempfile.TemporaryDirectory() as copy:
        for file in files:
            path = Path(copy) / file.path.lstrip("/")
            make_directory(path.parent)
            path.write_bytes(file.content.replace(link.encode(), copy.encode()) if link else file.content)
        output = _run(shlex.split(command.replace("{root}", copy)))
    if output and "systemd-analyze" in command:
        raise Refused(f"{command}: {output}")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise Refused(f"{shlex.join(command)}: {error.strerror}") from error
    if done.returncode:
        shown = textwrap.shorten(shlex.join(command), 100, placeholder=" [...]")
        raise Refused(f"{shown} failed with status {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout.strip()


def _text(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else path.read_text(errors="replace")


if __name__ == "__main__":
    main()
