"""How hosts and their apps are, as one table for a reader."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: status_lines
short_description: Show how hosts and their apps are, as one table
description:
  - Lines for a terminal from what M(slipway.asgi.status_info) found on each host. Each host has a line, and beneath it
    each of its apps; what is amiss stands beneath what it concerns. Times are in UTC.
version_added: 0.1.0
author: The Slipway developers (@slipway)
options:
  _input:
    description: What M(slipway.asgi.status_info) returned, by the name of the host.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how hosts and apps are
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: slipway_status} | slipway.asgi.status_lines | join('\n') }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

HEAD = ("app", "ready", "release", "slot", "since", "workers", "memory", "requests", "5xx", "cert")
# What follows these in the head stands on the right.
LEFT = 5
# A terminal of 80 columns, less what Ansible puts before each line with the ansible.cfg of the clone.
WIDTH = 76
# How much of a problem is shown, which may hold what an app has answered.
MOST = 240
UNKNOWN = "-"


def status_lines(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of the table."""
    rows = {host: [_row(app) for app in result.get("apps", [])] for host, result in hosts.items()}
    cells = [HEAD, *(row for found in rows.values() for row in found)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(HEAD, widths)]
    for host, result in hosts.items():
        lines.append(f"{host}{_disk(result)}")
        lines += _problems(_unanswered(result) or result["problems"])
        for row, app in zip(rows[host], result.get("apps", []), strict=True):
            lines.append(_line(row, widths))
            lines += _problems(app["problems"])
    return [*lines, "", *_summary(hosts)]


def _row(app: Mapping[str, Any]) -> tuple[str, ...]:
    workers = [f"{number}" for number in (app["workers"], app["workers_meant"]) if number is not None]
    return (
        f"  {app['name']}",
        "yes" if app["ready"] else "NO",
        app["release"] or UNKNOWN,
        app["slot"] or UNKNOWN,
        _time(app["since"]),
        "/".join(workers) if app["workers"] is not None else UNKNOWN,
        _size(app["memory"]),
        _number(app["requests"]),
        _number(app["errors"]),
        UNKNOWN if app["certificate_days"] is None else f"{app['certificate_days']}d",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:LEFT], widths[:LEFT], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[LEFT:], widths[LEFT:], strict=True)]
    return " ".join([*left, *right])


def _disk(result: Mapping[str, Any]) -> str:
    if "disk" not in result:
        return ""
    disk, requests = result["disk"], result["requests"]
    said = f": disk {disk['percent']} % of {_size(disk['size'])} full"
    if not result["apps"] or (requests and requests["whole"]):
        return said
    seconds = requests and requests["seconds"]
    return f"{said}; requests {f'of the last {seconds} s alone' if seconds else 'are not logged'}"


def _unanswered(result: Mapping[str, Any]) -> list[str]:
    """Why a host has not said how it is; nothing where it has."""
    if "disk" in result:
        return []
    reason = result.get("msg", "no answer").removeprefix("Task failed: ")
    return [f"{'NOT REACHED' if result.get('unreachable') else 'NOT KNOWN'}: {reason}"]


def _problems(problems: Sequence[str]) -> Iterator[str]:
    for problem in problems:
        text = textwrap.shorten(problem, MOST, placeholder=" [...]")
        yield from textwrap.wrap(
            text, WIDTH, initial_indent="    ! ", subsequent_indent="      ", break_on_hyphens=False
        )


def _summary(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "Times are in UTC; requests, and 5xx among them, are of the last 5 minutes."
    bad = {host: amiss for host, result in hosts.items() if (amiss := result.get("amiss", 1))}
    if bad:
        yield f"{_count(sum(bad.values()), 'problem')} on {len(bad)} of {_count(len(hosts), 'host')}."
    else:
        apps = sum(len(result["apps"]) for result in hosts.values())
        yield f"All is well: {_count(apps, 'app')} on {_count(len(hosts), 'host')}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _size(size: int | None) -> str:
    if size is None:
        return UNKNOWN
    return f"{size / 2**20:.0f}M" if size < 2**30 else f"{size / 2**30:.3g}G"


def _time(seconds: int | None) -> str:
    """The time of day, or the day or the month of what is longer ago, as ps(1) does."""
    if seconds is None:
        return UNKNOWN
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    days = (datetime.datetime.now(datetime.UTC) - when).days
    return when.strftime("%H:%M" if days < 1 else "%m-%d" if days < 300 else "%Y-%m")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"status_lines": status_lines}
