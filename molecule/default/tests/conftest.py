"""What the tests of a converged host share: the host from inside, and the site as a client meets it from outside."""

import dataclasses
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

APP = "guestbook"
DOMAIN = "guestbook.example"


@dataclasses.dataclass
class Site:
    """The site of a host, behind the ports that its container publishes; only its own certificate is trusted."""

    container: str
    certificate: str

    def port(self, inside: int) -> int:
        """The port on this machine behind which a port of the host lies."""
        shown = subprocess.check_output(["docker", "port", self.container, f"{inside}/tcp"], text=True)
        return int(shown.split()[0].rpartition(":")[2])

    @property
    def tls(self) -> ssl.SSLContext:
        """A context that trusts this certificate alone, and checks names."""
        return ssl.create_default_context(cadata=self.certificate)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask over HTTPS, as a client does that found the address in DNS."""
        headers = {"Host": DOMAIN, **options.pop("headers", {})}
        with httpx.Client(verify=self.tls, http2=options.pop("http2", False), trust_env=False, timeout=20) as client:
            return client.request(
                method,
                f"https://127.0.0.1:{self.port(443)}{path}",
                headers=headers,
                extensions={"sni_hostname": DOMAIN},
                **options,
            )

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for a page."""
        return self.request("GET", path, **options)

    def is_up(self) -> bool:
        """Whether the app says that it is ready."""
        try:
            return self.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that happens by itself, and say what did not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def container(host: Any) -> str:
    """The name of the host's container."""
    return str(host.backend.get_hostname())


@pytest.fixture(scope="module")
def site(host: Any, container: str) -> Site:
    """The site from outside."""
    return Site(container, host.file(f"/etc/slipway/certificates/{APP}/fullchain.pem").content_string)


@pytest.fixture
def live(host: Any) -> dict[str, Any]:
    """The live slot: its name, its unit, the master's pid and the workers'."""
    return look(host)


def look(host: Any) -> dict[str, Any]:
    """What is live now."""
    slot = host.check_output(f"basename $(readlink /srv/slipway/{APP}/live)")
    unit = f"slipway-{APP}@{slot}.service"
    master = host.check_output(f"systemctl show --property=MainPID --value {unit}")
    workers = host.run(f"pgrep --parent {master}").stdout.split()
    return {"slot": slot, "unit": unit, "master": master, "workers": set(workers)}


def play(container: str, *arguments: str, inventories: tuple[Path, ...] = ()) -> str:
    """Run site.yml as its user does, against this host alone, and return what it printed."""
    root = Path(__file__).resolve().parents[3]
    command = ["ansible-playbook", "-i", str(root / "molecule/default/inventory.yml")]
    for inventory in inventories:
        command += ["-i", str(inventory)]
    done = subprocess.run(
        [*command, "--limit", container, *arguments, "playbooks/site.yml"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
