"""What the role host refuses before it changes anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Playbook = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host_updates": "daily"}, "host_updates"),
        ({"host_ssh_keys_only": True, "ansible_password": "canary"}, "ansible_password is set"),
        ({"host_ssh_keys_only": "yes", "ansible_ssh_pass": "canary"}, "ansible_ssh_pass is set"),
    ],
)
def test_refused_by_name(wrong: dict[str, Any], said: str, playbook: Playbook, tmp_path: Path) -> None:
    tasks = [{"ansible.builtin.import_role": {"name": "slipway.asgi.host"}}]
    # This machine is no host: should the values pass, nothing is done all the same.
    *_, last = playbook(tmp_path, tasks, {"localhost": wrong}, "--check")["localhost"]
    assert last["failed"] and said in last["msg"]
    assert "canary" not in str(last)
