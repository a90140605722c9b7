"""What the unit tests share. They need no host: what would be one is a directory, and what acts on it is this user."""

from __future__ import annotations

import grp
import itertools
import json
import os
import pwd
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]
Playbook = Callable[..., dict[str, list[dict[str, Any]]]]

# As Ansible's programs do; without it, templates would not find the filters of this collection.
init_plugin_loader([str(ROOT / "collections")])


@pytest.fixture
def me() -> dict[str, str]:
    """The owner and group that the files of a test can have, whoever runs it."""
    return {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture(autouse=True)
def _what_root_would_own_stays_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "fchown", lambda *_: None)


@pytest.fixture(scope="session")
def playbook() -> Playbook:
    """A real ansible-playbook in a directory; it returns what each host's tasks gave, in order."""

    def run(
        directory: Path, tasks: list[dict[str, Any]], hosts: Mapping[str, Any], *arguments: str
    ) -> dict[str, list[dict[str, Any]]]:
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        (directory / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        connection = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"hosts": hosts, "vars": connection}}
        (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        }
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", "play.yml", *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "{" in done.stdout, done.stdout + done.stderr
        results: dict[str, list[dict[str, Any]]] = {}
        for task in json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]:
            for host, result in task["hosts"].items():
                results.setdefault(host, []).append(result)
        return results

    return run


# All that changes what a directory holds: between two of them a killed process leaves the same on the disk.
CHANGES = ("chmod", "mkdir", "open", "rename", "replace", "rmdir", "symlink", "unlink")


@pytest.fixture(scope="session")
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """Do something in a process of its own that is killed just before its nth change; False if it came to its end."""

    def run(number: int, act: Callable[[], object]) -> bool:
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, "it failed by itself"
            return status != 0
        try:
            left = itertools.count(number - 1, -1)
            for name in CHANGES:
                setattr(os, name, _deadly(getattr(os, name), left))
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    return run


def _deadly(call: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    def change(*arguments: Any, **named: Any) -> Any:
        only_reads = call.__name__ == "open" and not arguments[1] & os.O_CREAT
        if not only_reads and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return change
