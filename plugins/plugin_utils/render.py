"""What the actions of this collection share: templates rendered as ansible.builtin.template renders them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# Of Ansible's template options, the ones that differ from Jinja's own.
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": False}


def render(action: ActionBase, template: str, task_vars: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """Render a template of the calling role.

    Args:
        action: the running action, which knows role, loader and templar.
        template: the template's name in the role's ``templates`` directory.
        task_vars: the variables of the task.
        extra: variables on top of them, for this template alone.

    Returns:
        The rendered text.
    """
    source = action._find_needle("templates", template)
    text = trust_as_template(action._loader.get_text_file_contents(source))
    variables = {"ansible_managed": "Ansible managed", **task_vars, **extra}
    templar = action._templar.copy_with_new_env(searchpath=[os.path.dirname(source)], available_variables=variables)
    return str(templar.template(text, escape_backslashes=False, overrides=OVERRIDES))


def render_files(
    action: ActionBase, entries: list[dict[str, Any]], task_vars: Mapping[str, Any], extra: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Turn a role's list of files into what the modules take: paths with their content.

    Each entry has a ``path`` and one of ``template``, ``src`` (a file of the role, as it is), ``content`` or
    ``state: absent``. With ``each``, a list, there is one file for each element, which the template sees as ``item``;
    path and src may hold its keys in braces, and for a list of paths ``{item}`` and ``{name}``, the last part of it.
    With ``needs``, the file is there only where the app has a value for that key, which may be filled in likewise; with
    ``servers``, only for an app that one of these serves.
    """
    files = []
    for entry in entries:
        if "servers" in entry and extra["app"]["server"] not in entry["servers"]:
            continue
        for item in entry.get("each", [None]):
            if "needs" in entry and not extra["app"].get(_fill(entry["needs"], item)):
                continue
            scope = dict(extra) if item is None else {**extra, "item": item}
            path, source = (_fill(entry.get(key, ""), item) for key in ("path", "src"))
            file = {
                key: entry[key] for key in ("mode", "owner", "group", "state", "target", "keep") if key in entry
            } | {"path": path}
            if "template" in entry:
                file["content"] = render(action, entry["template"], task_vars, scope)
            elif source:
                file["content"] = action._loader.get_text_file_contents(action._find_needle("files", source))
            elif "content" in entry:
                file["content"] = entry["content"]
            elif entry.get("state") != "absent":
                raise AnsibleActionFail(f"{path}: one of template, src, content or state: absent is needed")
            files.append(file)
    return files


def _fill(text: str, item: Any) -> str:
    if item is None:
        return text
    return text.format(**item) if isinstance(item, Mapping) else text.format(item=item, name=os.path.basename(item))
