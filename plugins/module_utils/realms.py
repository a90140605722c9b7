"""Realms: a certificate with its key for each app, behind names that stay the same whoever issued it.

Standard library only, and no import from outside of this package: a host keeps a copy of it, for renewals.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import grp
import os
import pwd
import re
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .generations import File, Generations, lies_at, make_directory

DAYS = 825
# By this it is known again; a certificate of the user's own may be signed by itself, too.
SELF_SIGNED = "Slipway self-signed"


class Refused(Exception):
    """A certificate that cannot be put in place."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a certificate says of itself.

    Attributes:
        issuer: who signed it.
        names: the host names that it is for.
        not_before: when it begins to be good.
        not_after: when it ceases to be.
        fingerprint: the SHA-256 of the whole.
        public_key: its public key, as PEM.
    """

    issuer: str
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str
    public_key: str

    def __str__(self) -> str:
        return (
            f"issuer: {self.issuer}\nnames: {', '.join(self.names)}\n"
            f"good until: {self.not_after:%Y-%m-%d}\nsha256: {self.fingerprint}\n"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What a module returns of it."""
        return {"issuer": self.issuer, "names": list(self.names), "not_after": self.not_after.isoformat()}

    def is_aging(self, now: datetime.datetime) -> bool:
        """Whether less than a third of its time is left."""
        return now > self.not_after - (self.not_after - self.not_before) / 3


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its private key, both as PEM."""

    fullchain: str
    privkey: str = dataclasses.field(repr=False)

    @classmethod
    def at(cls, directory: Path | None) -> Pair | None:
        """The pair in a directory, or None where it is not whole."""
        if directory is None:
            return None
        try:
            return cls((directory / "fullchain.pem").read_text(), (directory / "privkey.pem").read_text())
        except (OSError, UnicodeDecodeError):
            return None

    def files(self, key_group: str) -> list[File]:
        """The files that hold it, owned by who runs this, which is root but in tests; a group may read the key."""
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid).gr_name
        mode = 0o640 if key_group else 0o600
        return [
            File("fullchain.pem", self.fullchain.encode(), 0o644, user.pw_name, group),
            File("privkey.pem", self.privkey.encode(), mode, user.pw_name, key_group or group),
        ]

    @property
    def matches(self) -> bool:
        """Whether the key is the certificate's own, and both can be read."""
        try:
            return _openssl("pkey -pubout", self.privkey).strip() == inspect(self.fullchain).public_key.strip()
        except Refused:
            return False

    @property
    def is_self_signed(self) -> bool:
        """Whether Slipway made it."""
        return f"O={SELF_SIGNED}" in inspect(self.fullchain).issuer.split(",")


@dataclasses.dataclass(frozen=True)
class Front:
    """Who serves the certificates.

    Attributes:
        pending: a file that is there from before a certificate changes until it is served, if any.
        validate: a command that says whether the service would take up what there is; empty is none.
        service: the service that is told to reload; empty is none.
        key_group: the group that may read private keys beside root; empty is none.
    """

    pending: Path | None = None
    validate: str = ""
    service: str = ""
    key_group: str = ""

    def announce(self) -> None:
        """Note that something is about to change."""
        if self.pending:
            make_directory(self.pending.parent)
            self.pending.touch()

    def take_up(self) -> None:
        """Let the service read the certificates again.

        Raises:
            Refused: it cannot, and goes on with what it has read before.
        """
        if self.validate:
            _run(shlex.split(self.validate))
        if self.service:
            _run(["systemctl", "reload", self.service])
        # What stands in it is more than a certificate, and for a playbook to finish.
        if self.pending and self.pending.exists() and not self.pending.read_text():
            self.pending.unlink()


@dataclasses.dataclass(frozen=True)
class Realm:
    """The place of one app's certificate.

    Attributes:
        root: the directory of all realms.
        name: the app's name.
    """

    root: Path
    name: str

    @property
    def generations(self) -> Generations:
        """Its certificates, old and new."""
        return Generations(self.root / ".generations" / self.name, self.root / self.name)

    def pair(self) -> Pair | None:
        """What is served, or None before the first."""
        return Pair.at(self.generations.current())

    @property
    def exists(self) -> bool:
        """Whether there is anything of it."""
        generations = self.generations
        return generations.link.is_symlink() or generations.store.exists()

    def delete(self) -> None:
        """Remove its certificates, old and new."""
        generations = self.generations
        if generations.link.is_symlink():
            generations.link.unlink()
        shutil.rmtree(generations.store, ignore_errors=True)

    def holds(self, pair: Pair, front: Front) -> bool:
        """Whether just this pair is served, with the right modes and owners."""
        current = self.generations.current()
        return current is not None and all(lies_at(file, current / file.path) for file in pair.files(front.key_group))

    def put(self, pair: Pair, front: Front) -> None:
        """Make a pair the one that is served once the front reloads.

        Raises:
            Refused: something else than a link of Slipway's has its name.
        """
        generations = self.generations
        if generations.link.exists() and not generations.link.is_symlink():
            raise Refused(f"{generations.link} is not a link of Slipway's; move it away and run this again")
        front.announce()
        make_directory(generations.link.parent)
        realms = generations.store.parent
        make_directory(realms, 0o700)
        if front.key_group:
            os.chown(realms, -1, grp.getgrnam(front.key_group).gr_gid)
            realms.chmod(0o710)
        generations.activate(generations.stage(pair.files(front.key_group)))
        generations.prune(generations.newest(2))


@functools.lru_cache
def inspect(fullchain: str) -> Certificate:
    """What the first certificate of a chain says of itself.

    Raises:
        Refused: there is none that can be read.
    """
    output = _openssl(
        "x509 -noout -issuer -nameopt RFC2253 -dates -ext subjectAltName -fingerprint -sha256 -pubkey", fullchain
    )
    fields = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    begin, end = (
        datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(fields[key]), datetime.timezone.utc)
        for key in ("notBefore", "notAfter")
    )
    return Certificate(
        issuer=fields["issuer"],
        names=tuple(sorted(re.findall(r"DNS:([^,\s]+)", output))),
        not_before=begin,
        not_after=end,
        fingerprint=fields["sha256 Fingerprint"],
        public_key=_pem(output, "PUBLIC KEY"),
    )


def self_signed(name: str, domains: Sequence[str]) -> Pair:
    """Make a certificate that signs itself; the key never lies in a file of its own.

    Args:
        name: the app's name, which becomes the subject's.
        domains: the host names that it is for.
    """
    configuration = "\n".join(
        [
            "[req]",
            "prompt = no",
            "distinguished_name = subject",
            "x509_extensions = extensions",
            "[subject]",
            f"O = {SELF_SIGNED}",
            f"CN = {name}",
            "[extensions]",
            "basicConstraints = critical,CA:FALSE",
            "keyUsage = critical,digitalSignature",
            "extendedKeyUsage = serverAuth",
            "subjectKeyIdentifier = hash",
            f"subjectAltName = {','.join(f'DNS:{domain}' for domain in domains)}",
            "",
        ]
    )
    output = _openssl(
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days {DAYS} "
        "-config /dev/stdin -keyout /dev/stdout -out /dev/stdout",
        configuration,
    )
    return Pair(_pem(output, "CERTIFICATE"), _pem(output, "PRIVATE KEY"))


def make_group(name: str) -> None:
    """Make a group of the system's, where there is none of this name.

    Raises:
        Refused: it could not be made.
    """
    try:
        grp.getgrnam(name)
    except KeyError:
        _run(["groupadd", "--system", name])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refused(f"{shlex.join(command)} failed with status {done.returncode}: {done.stdout.strip()}")


def _pem(text: str, label: str) -> str:
    begin, end = f"-----BEGIN {label}-----\n", f"-----END {label}-----\n"
    return begin + text.partition(begin)[2].partition(end)[0] + end


def _openssl(arguments: str, standard_input: str) -> str:
    try:
        done = subprocess.run(
            ["openssl", *arguments.split()], input=standard_input, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise Refused("openssl is not installed on this host") from error
    if done.returncode:
        raise Refused(f"openssl {arguments.split()[0]}: {done.stderr.strip()}")
    return done.stdout
