"""What tests of converged hosts share: the site as a client meets it from outside, and the host from inside."""

import dataclasses
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
APP = "guestbook"
DOMAIN = "guestbook.example"
STATE = f"/var/lib/slipway/{APP}"
# Asks a site from its own host, over HTTPS by the name and the path that follow, and prints status and body.
ASK_INSIDE = """
import socket, ssl, sys
name, path = sys.argv[1:]
context = ssl._create_unverified_context()
connection = context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 20), server_hostname=name)
connection.sendall(f"GET {path} HTTP/1.0\\r\\nHost: {name}\\r\\n\\r\\n".encode())
head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).decode().partition("\\r\\n\\r\\n")
print(head.split()[1], body)
"""


@dataclasses.dataclass
class Site:
    """A site of a host, behind the ports that its container publishes; only its own certificate is trusted."""

    container: str
    certificate: str
    domain: str = DOMAIN

    def port(self, inside: int) -> int:
        """The port on this machine behind which a port of the host lies."""
        shown = subprocess.check_output(["docker", "port", self.container, f"{inside}/tcp"], text=True)
        return int(shown.split()[0].rpartition(":")[2])

    @property
    def address(self) -> str:
        """Where the site is without the proxy of the published ports, which takes a fifth of a CPU under load."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        shown = subprocess.check_output(["docker", "inspect", "--format", networks, self.container], text=True)
        return f"https://{shown.split()[0]}"

    @property
    def tls(self) -> ssl.SSLContext:
        """A context that trusts this certificate alone, and checks names."""
        return ssl.create_default_context(cadata=self.certificate)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask over HTTPS, as a client does that found the address in DNS."""
        headers = {"Host": self.domain, **options.pop("headers", {})}
        with httpx.Client(verify=self.tls, http2=options.pop("http2", False), trust_env=False, timeout=20) as client:
            return client.request(
                method,
                f"https://127.0.0.1:{self.port(443)}{path}",
                headers=headers,
                extensions={"sni_hostname": self.domain},
                **options,
            )

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for a page."""
        return self.request("GET", path, **options)

    def is_up(self) -> bool:
        """Whether the app answers, and its database."""
        try:
            return self.get("/api/entries").status_code == 200
        except httpx.HTTPError:
            return False


def inside(container: str, script: str, given: str | bytes = "") -> str:
    """Run a script as root in a container, and insist that it succeeds."""
    command = ["docker", "exec", "-i", container, "sh", "-ec", script]
    content = given.encode() if isinstance(given, str) else given
    done = subprocess.run(command, input=content, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout.decode()


def exposure(host: Any, unit: str) -> float:
    """What a unit scores in ``systemd-analyze security``, where less is better; printed as well."""
    shown = host.check_output(f"systemd-analyze security --no-pager {unit}")
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert score, shown
    print(f"{unit}: {score[1]}")
    return float(score[1])


def ask_inside(host: Any, path: str) -> tuple[int, str]:
    """Status and body of what the site says to its own host."""
    status, _, body = host.check_output("python3 -c %s %s %s", ASK_INSIDE, DOMAIN, path).partition(" ")
    return int(status), body


def aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that happens by itself, and say what did not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.3)


def journal(host: Any, options: str) -> list[str]:
    """Lines of the journal, all of them: a file that journald is just making longer is left out by journalctl."""
    shown: list[Any] = []

    def is_whole() -> bool:
        shown[:] = [host.run(f"journalctl --no-pager --output=cat {options}")]
        return shown[0].rc == 0 and "ignoring file" not in shown[0].stderr

    wait_until(is_whole, 10, "the whole journal can be read")
    return str(shown[0].stdout).splitlines()


def look(host: Any, app: str = APP) -> dict[str, Any]:
    """What is live now: the slot, its unit, the master's pid and the workers'."""
    slot = host.check_output(f"basename $(readlink /srv/slipway/{app}/live)")
    unit = f"slipway-{app}@{slot}.service"
    master = host.check_output(f"systemctl show --property=MainPID --value {unit}")
    workers = host.run(f"pgrep --parent {master}").stdout.split()
    return {"slot": slot, "unit": unit, "master": master, "workers": set(workers)}


def start(
    container: str,
    *arguments: str,
    inventories: tuple[Path, ...] = (),
    playbook: str = "site",
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a playbook as its user does, against this host alone.

    Args:
        container: the host's name in the inventory of the scenario that calls.
        arguments: more arguments for ansible-playbook.
        inventories: layers on top of the scenario's inventory.
        playbook: its name.
        environment: variables on top of the caller's.
    """
    scenario = container.split("-")[1]
    command = ["ansible-playbook", "-i", str(ROOT / "molecule" / scenario / "inventory.yml")]
    for inventory in inventories:
        command += ["-i", str(inventory)]
    return subprocess.Popen(
        [*command, "--limit", container, *arguments, f"playbooks/{playbook}.yml"],
        cwd=ROOT,
        # Colours, which molecule asks for, would stand in the middle of what tests look for.
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play(container: str, *arguments: str, **options: Any) -> str:
    """Run a playbook to its end, with the options of :func:`start`, and return what it printed.

    Raises:
        AssertionError: it failed; the message is what it printed.
    """
    with start(container, *arguments, **options) as running:
        output, _ = running.communicate()
    assert running.returncode == 0, output
    return output


def database_away(host: Any) -> None:
    """Put something in the database's place that cannot be opened."""
    host.check_output(f"cd {STATE} && mkdir away && mv guestbook.sqlite3* away/ && mkdir guestbook.sqlite3")


def database_back(host: Any) -> None:
    """Put the database back."""
    host.check_output(f"cd {STATE} && rm -rf guestbook.sqlite3* && mv away/guestbook.sqlite3* . && rmdir away")
