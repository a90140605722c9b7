"""The releases on a host, as lines for a reader."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: release_lines
short_description: List releases, one line for each
description:
  - Lines for a terminal from what M(slipway.asgi.release_info) found. Times are in UTC.
version_added: 0.1.0
author: The Slipway developers (@slipway)
options:
  _input:
    description: The apps that M(slipway.asgi.release_info) returned.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: List the releases
  ansible.builtin.debug:
    msg: "{{ slipway_releases.apps | slipway.asgi.release_lines }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def release_lines(apps: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each app, and beneath it one for each of its releases."""
    return [line for app in apps for line in _lines(app)] or ["no apps are on this host"]


def _lines(app: Mapping[str, Any]) -> list[str]:
    since = f" since {_time(app['since'])}" if app["since"] else ""
    live = f"release {app['release']} is live in slot {app['slot']}{since}" if app["release"] else "nothing is live"
    lines = [f"{app['name']}: {live}"]
    for release in app["releases"]:
        notes = {app["release"]: "live", app["previous"]: "rollback"}
        mark = "*" if release["id"] == app["release"] else " "
        made_of = " ".join(filter(None, [release.get("version"), release.get("commit", "")[:10]]))
        parts = [f"{mark} {release['id']}", _time(release["built"]), made_of, notes.get(release["id"], "")]
        lines.append("  ".join(filter(None, parts)))
    return lines


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"release_lines": release_lines}
