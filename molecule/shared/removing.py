"""What tests of a removal share: a host before and after, and what may differ."""

import fnmatch
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hosts import ROOT, Site, aligned, play

Snapshot = dict[str, dict[str, str]]

# By kind and shell pattern, what differs afterwards, and why it may.
RESTS = {
    "file": {
        "/etc/*-": "what useradd and its like keep of the file before",
        "/etc/.pwd.lock": "their lock",
        "/etc/group": "compared user by user",
        "/etc/gshadow": "compared user by user",
        "/etc/passwd": "compared user by user",
        "/etc/shadow": "compared user by user",
        "/root/.ansible*": "Ansible's own",
        "/usr/*/__pycache__*": "what Python compiled when Ansible ran",
        "/var/backups/*": "what dpkg knows of packages, copied each night",
        "/var/cache/apt/*": "apt's cache",
        "/var/cache/debconf/*": "what packages asked when they came",
        "/var/lib/ucf/*": "what packages asked when they came",
        "/var/www*": "Debian's nginx leaves its page",
        "/var/cache/ldconfig/*": "the linker's cache",
        "/etc/ld.so.cache": "the linker's cache",
        "/var/lib/apt/*": "what apt knows of packages",
        "/var/lib/dpkg/*": "what dpkg knows of packages",
        "/var/lib/systemd/*": "systemd's own clocks",
        "/var/log/*": "what was logged",
        "*/systemd-private-*": "as long as a service runs",
    },
    "user": dict.fromkeys(("prometheus", "systemd-timesync"), "Debian's packages leave their users"),
    "group": dict.fromkeys(("prometheus", "systemd-timesync"), "Debian's packages leave their users"),
    "active unit": {
        "apt-daily*.service": "apt's own timers",
        "*.target": "reached once, until the next boot",
    },
    "limit": {
        "fs/*-nr": "a count",
        "fs/*-state": "a count",
        "fs/inode-nr": "a count",
        "fs/quota/*": "a count",
        "kernel/ns_last_pid": "a count",
        "kernel/perf*": "the machine's beneath the container",
        "kernel/pty/nr": "a count",
        "kernel/random/*": "random",
        "net/netfilter/*": "of connections that are followed, once a firewall has asked for that",
        "vm/*": "the machine's beneath the container",
    },
}


class Host:
    """One host of the scenario."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.container = str(host.backend.get_hostname())
        self.left: Counter[tuple[str, str]] = Counter()

    def snapshot(self) -> Snapshot:
        """What it is now."""
        program = (ROOT / "molecule/removal/snapshot.py").read_text()
        command = ["docker", "exec", "-i", self.container, "python3", "-"]
        done = subprocess.run(command, input=program, capture_output=True, text=True, check=True)
        found: Snapshot = json.loads(done.stdout)
        return found

    def insist_on(self, before: Snapshot, rests: Mapping[str, Mapping[str, str]] = RESTS) -> None:
        """Insist that nothing differs from a snapshot but what has a reason; that is counted."""
        after = self.snapshot()
        bad = []
        self.left.clear()
        for kind in before:
            for name in sorted(before[kind].keys() | after[kind].keys()):
                was, now = before[kind].get(name), after[kind].get(name)
                if was == now:
                    continue
                known = [reason for pattern, reason in rests.get(kind, {}).items() if fnmatch.fnmatch(name, pattern)]
                if known:
                    self.left[kind, known[0]] += 1
                else:
                    bad.append(f"{kind} {name}: {was} -> {now}")
        assert not bad, "\n".join(bad)

    @property
    def site(self) -> Site:
        """Its app's site, as long as that is there."""
        found = self.host.file("/etc/slipway/certificates/guestbook/fullchain.pem")
        return Site(self.container, found.content_string if found.exists else "")

    def play(self, playbook: str = "site", *arguments: str, inventories: Sequence[Path] = ()) -> str:
        """Run a playbook, with these layers on the inventory."""
        return play(self.container, *arguments, inventories=inventories, playbook=playbook)

    def remove(self, *arguments: str) -> str:
        """Take Slipway away."""
        return self.play("remove", "-e", "everything=true", *arguments)


HOSTS: dict[str, Host] = {}


def table() -> Iterator[str]:
    """The lines of a table of what was left on each host, and why."""
    cells = [
        (name, kind, str(count), reason)
        for name, host in HOSTS.items()
        for (kind, reason), count in sorted(host.left.items())
    ]
    return aligned([("host", "what", "count", "why"), *cells])
