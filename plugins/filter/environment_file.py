"""Values on their way into systemd's environment files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.environment import environment_file

DOCUMENTATION = r"""
name: environment_file
short_description: Write a mapping as a systemd environment file
description:
  - Quotes each value so that systemd hands it to the process byte for byte.
version_added: 0.1.0
author: The Slipway developers (@slipway)
options:
  _input:
    description: The variables, each a text without NUL bytes.
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


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"environment_file": environment_file}
