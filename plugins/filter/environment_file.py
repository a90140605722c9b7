"""Values on their way into systemd's environment files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: environment_file
short_description: Write a mapping as a systemd environment file
description:
  - Quotes each value so that systemd hands it to the process byte for byte.
version_added: 0.1.0
author: The Slipway developers (@slipway)
options:
  _input:
    description: The variables, each a single line of text.
    type: dict
    required: true
"""

EXAMPLES = r"""
environment: "{{ {'GREETING': 'say \"hi\" for $5'} | slipway.asgi.environment_file }}"
"""

RETURN = r"""
_value:
  description: The lines of the file, sorted by name.
  type: str
"""

# The characters that systemd unescapes between double quotes (SHELL_NEED_ESCAPE in src/basic/escape.h).
ESCAPED = '"\\`$'


def environment_file(variables: Mapping[str, Any]) -> str:
    """Write a mapping of names and single-line values as a systemd environment file."""
    return "".join(f"{name}={_quoted(str(variables[name]))}\n" for name in sorted(variables))


def _quoted(value: str) -> str:
    return '"' + "".join(f"\\{character}" if character in ESCAPED else character for character in value) + '"'


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"environment_file": environment_file}
