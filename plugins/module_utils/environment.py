"""Environment files, as systemd reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What systemd unescapes between double quotes (SHELL_NEED_ESCAPE in src/basic/escape.h). All other characters, also
# line breaks, stand for themselves there.
ESCAPED = '"\\`$'


def environment_file(variables: Mapping[str, Any]) -> str:
    """Write a mapping of names and values so that systemd hands each value to the process byte for byte."""
    return "".join(f"{name}={_quoted(str(variables[name]))}\n" for name in sorted(variables))


def _quoted(value: str) -> str:
    return '"' + "".join(f"\\{character}" if character in ESCAPED else character for character in value) + '"'
