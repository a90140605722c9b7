"""What a run did, in one line for each app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: summary
short_description: Sum up a run in one line for each app
description:
  - Joins what was planned with what the tasks returned.
version_added: 0.1.0
author: The Slipway developers (@slipway)
positional: results
options:
  _input:
    description: The apps, with their plan where M(slipway.asgi.release_plan) has made one.
    type: list
    elements: dict
    required: true
  results:
    description: The registered results of the looped tasks with M(slipway.asgi.release), oldest first.
    type: list
    elements: dict
    required: true
  port:
    description: The port on which clients reach HTTPS.
    type: int
    default: 443
"""

EXAMPLES = r"""
lines: "{{ __app_plan.apps.values() | slipway.asgi.summary([__app_built, __app_live]) }}"
"""

RETURN = r"""
_value:
  description: For each app its name, release, slot, what was done and a line that says it all.
  type: list
  elements: dict
"""


def summary(apps: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]], port: int = 443) -> list[Any]:
    """One entry for each app: name, release, slot, seconds by step, and the line for a reader."""
    return [_entry(app, list(results), int(port)) for app in apps]


def _entry(app: Mapping[str, Any], results: list[Mapping[str, Any]], port: int) -> dict[str, Any]:
    plan = app.get("plan", {})
    release, slot = plan.get("live"), plan.get("live_slot")
    timings: dict[str, float] = {}
    size: Mapping[str, Any] = {}
    reasons: list[str] = []
    for result in results:
        for done in result.get("results", []):
            if done.get("item") == app["name"] and "timings" in done:
                timings.update(done["timings"])
                release, slot, size = done["release"], done["slot"], done.get("size") or {}
                reasons = done.get("reasons", [])
    address = f"https://{app['domains'][0]}{'' if port == 443 else f':{port}'}"
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in timings.items() if seconds >= 0.05)
    if timings:
        told = f"serves release {release} from slot {slot}, {sum(timings.values()):.1f} s{steps and f' ({steps})'}"
        told += f"; {_sized(size)}" if size else ""
    elif plan.get("switch"):
        told = f"would serve release {app['release']} from slot {plan['slot']}"
    elif plan.get("reload"):
        told = f"would reload release {release} in slot {slot}"
    elif reasons:
        told = f"would change: {', '.join(reasons)}"
    else:
        told = f"serves release {release} from slot {slot}, unchanged"
    return {
        "name": app["name"],
        "release": release,
        "slot": slot,
        "timings": timings,
        "line": f"{app['name']}: {address} {told}",
    }


def _sized(size: Mapping[str, Any]) -> str:
    """How large the server is, and why."""
    parts = [f"{size['workers']} worker{'s' if size['workers'] != 1 else ''}"]
    parts += [f"{size['threads']} threads each"] if size["threads"] > 1 else []
    return f"{' of '.join(parts)}, {size['why']}"


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"summary": summary}
