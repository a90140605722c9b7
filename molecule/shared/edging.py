"""What tests of the edge share: the CA's host, the DNS's host, and certificates as a client sees them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from hosts import Site, aligned, inside, play

CA, DNS = "slipway-edge-ca", "slipway-edge-dns"
APPS = {
    "guestbook": ["shop.edge.test", "www.shop.edge.test"],
    "blog": ["blog.edge.test", "www.blog.edge.test"],
    "api": ["api.edge.test"],
}
NAMES = [name for names in APPS.values() for name in names]
_NUMBERS = itertools.count(1)


@dataclasses.dataclass
class Seen:
    """One row of the table."""

    system: str
    what: str
    note: str = ""
    passed: bool = False


ROWS: list[Seen] = []


def table() -> Iterator[str]:
    """The lines of the table."""
    return aligned([(row.system, row.what, row.note or "-", "passed" if row.passed else "FAILED") for row in ROWS])


def address(container: str) -> str:
    """The address at which containers reach one."""
    return inside(container, "hostname --all-ip-addresses").split()[0]


class Edge:
    """One host with its sites, and what the world around it is told.

    Attributes:
        overrides: the options of apps on top of the scenario's inventory, which hold from play to play.
    """

    def __init__(self, host: Any, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.container = str(host.backend.get_hostname())
        self.site = Site(self.container, "")
        self.overrides: dict[str, dict[str, Any]] = {}
        self.variables: dict[str, Any] = {}

    @contextlib.contextmanager
    def row(self, what: str) -> Iterator[Seen]:
        """A new row, which has passed where the block comes to its end."""
        row = Seen(self.container.rpartition("edge-")[2], what)
        ROWS.append(row)
        yield row
        row.passed = True

    # --- DNS

    def names(self, *names: str, at: str | None = None) -> None:
        """Let DNS say that these names are this host, or another address."""
        self.no_names(*names)
        for name in names:
            body = json.dumps({"host": f"{name}.", "addresses": [at or address(self.container)]})
            inside(CA, f"curl -fsS -d '{body}' http://127.0.0.1:8055/add-a")

    def no_names(self, *names: str) -> None:
        """Let DNS know nothing of these names."""
        for name in names:
            body = json.dumps({"host": f"{name}."})
            inside(CA, f"curl -fsS -d '{body}' http://127.0.0.1:8055/clear-a")

    # --- what is done

    def play(
        self,
        playbook: str = "site",
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        **options: dict[str, Any],
    ) -> str:
        """Run a playbook, with these options of apps in this play only, and return what it printed."""
        path = self.directory / f"layer-{next(_NUMBERS)}.yml"
        layers = {"slipway_app_overrides_a": self.overrides, "slipway_app_overrides_b": options, **self.variables}
        path.write_text(yaml.safe_dump({"edge": {"hosts": {self.container: layers}}}))
        return play(self.container, *arguments, inventories=(path,), playbook=playbook, environment=environment)

    def refused(self, playbook: str = "site", *arguments: str, **options: dict[str, Any]) -> str:
        """Run a playbook that must fail, and return what it printed."""
        try:
            self.play(playbook, *arguments, **options)
        except AssertionError as error:
            return str(error)
        raise AssertionError(f"was not refused: {playbook} {options}")

    # --- what is seen

    def served(self, name: str) -> x509.Certificate:
        """The certificate that a client gets who asks for a name."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.site.port(443)), 10) as plain,
            context.wrap_socket(plain, server_hostname=name) as connection,
        ):
            return x509.load_der_x509_certificate(connection.getpeercert(True) or b"")

    def names_served(self, name: str) -> set[str]:
        """The names in it."""
        extension = self.served(name).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return set(extension.value.get_values_for_type(x509.DNSName))

    def issuer(self, name: str) -> str:
        """Who issued it: ``pebble`` or ``self``, or what it says."""
        said = self.served(name).issuer.rfc4514_string()
        return "pebble" if "Pebble" in said else "self" if "Slipway self-signed" in said else said

    def unchanged(self) -> None:
        """Insist that a run of site.yml changes nothing."""
        output = self.play()
        assert " changed=0 " in output, output
