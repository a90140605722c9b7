"""Modules that are killed at one system call after the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

# Every system call by which the module changes something: names and contents of files, and the programs that it starts.
# Not openat, though it can make a file: Python opens hundreds that it only reads, and where this module makes one, a
# call of the set stands right before it and right after it, so that no state between two changes is left out. Nor what
# only waits, asks or syncs: it leaves nothing behind that the kernel would not keep for a killed process anyway.
CHANGES = (
    *("rename", "renameat", "renameat2", "symlink", "symlinkat", "link", "linkat", "unlink", "unlinkat", "mkdir"),
    *("mkdirat", "rmdir", "truncate", "ftruncate", "chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown"),
    *("fchownat", "utimensat", "write", "pwrite64", "sendfile", "copy_file_range"),
    *("fork", "vfork", "clone", "clone3", "kill"),
)
# What the module release does first.
LOCK = "flock"
PAYLOADS = "/root/.ansible/tmp"
KEEP_PAYLOADS = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_PIPELINING": "0"}


class Payload:
    """A module with its arguments, as Ansible has sent it to the host.

    Args:
        host: the host.
        module: its name.
        argument: what stands in its arguments; the newest payload with it is taken.
        first: the system call with which its work begins; what is before, to start Python, changes nothing. Empty is
            all that it does.
    """

    def __init__(self, host: Any, module: str, argument: str, first: str = LOCK) -> None:
        self.host, self.first = host, first
        found = self.host.check_output(
            f"ls -t $(grep --files-with-matches --recursive '{argument}' {PAYLOADS} "
            f"--include=AnsiballZ_{module}.py) | head -1"
        )
        assert found, f"no payload of {module} with {argument}"
        self.path = f"/root/{module}-{time.monotonic_ns()}.py"
        self.host.check_output(f"cp {found} {self.path}")

    def run(self) -> dict[str, Any]:
        """Run it to its end, and insist that it succeeds."""
        done = self.host.run(f"python3 {self.path}")
        result: dict[str, Any] = json.loads(done.stdout)
        assert done.rc == 0, result
        return result

    def calls(self) -> list[tuple[str, int]]:
        """Run it to its end, and return its changing calls since its first: by name, and which of that name."""
        names = ",".join(f"?{name}" for name in (*CHANGES, self.first) if name)
        self.host.check_output(f"strace -qq -o /root/calls -e signal=none -e trace={names} python3 {self.path}")
        seen: Counter[str] = Counter()
        calls = []
        for line in self.host.check_output("cat /root/calls").splitlines():
            name = line.partition("(")[0]
            seen[name] += 1
            if name in CHANGES and (not self.first or seen[self.first]):
                calls.append((name, seen[name]))
        return calls

    def cut_off(self, call: tuple[str, int]) -> bool:
        """Run it with SIGKILL at the entry of one call; False where it came to its end before."""
        name, number = call
        inject = f"-e trace={name} -e inject={name}:signal=KILL:when={number}"
        return int(self.host.run(f"strace -qq -o /dev/null {inject} python3 {self.path}").rc) != 0


def spread(calls: list[Any], count: int | None) -> list[Any]:
    """Some calls, evenly from the first to the last; all of them where no count is given."""
    if count is None or count >= len(calls):
        return calls
    return [calls[round(index * (len(calls) - 1) / (count - 1))] for index in range(count)]
