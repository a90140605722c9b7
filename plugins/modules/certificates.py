#!/usr/bin/python
"""A certificate for each app, behind names that stay the same whoever issued it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Keep a certificate for each app behind stable names
description:
  - Keeps C(fullchain.pem) and C(privkey.pem) of every app in O(root)C(/NAME), which is a link to a generation, so that
    certificate and key change together with one rename.
  - An app that brings no files of its own gets a self-signed certificate (ECDSA P-256, 825 days) for all its domains.
    It is made anew when the domains change, when less than a third of its time is left, or when its key is not its own.
  - Files of the user's are read and checked on the controller.
  - The certificate of an app that is not listed is left alone.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description: The apps.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The app's name.
        type: str
        required: true
      domains:
        description: The names that the certificate must cover; the leftmost label of one may be V(*).
        type: list
        elements: str
        required: true
      certificate:
        description: The user's own certificate; without it, a self-signed one is made.
        type: dict
        suboptions:
          fullchain:
            description: The file on the controller with the certificate and, after it, its chain.
            type: path
            required: true
          privkey:
            description: The file on the controller with its private key, which may be encrypted with ansible-vault.
            type: path
            required: true
  root:
    description: The directory of the certificates.
    type: path
    default: /etc/slipway/certificates
  pending:
    description:
      - A file that is made just before a certificate changes. Who serves the certificates takes them up while it is
        there, and removes it.
    type: path
attributes:
  check_mode:
    support: full
    description: Says which certificates would change.
  diff_mode:
    support: full
    description: Shows issuer, names, end and fingerprint of each certificate before and after; never a key.
"""

EXAMPLES = r"""
- name: Provide a certificate for each app
  slipway.asgi.certificates:
    apps:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
      - name: blog
        domains: [blog.example.com]
        certificate: {fullchain: files/blog.pem, privkey: files/blog.key}
    pending: /etc/nginx/slipway/pending
"""

RETURN = r"""
changed_apps:
  description: The apps whose certificate changed.
  returned: always
  type: list
  elements: str
  sample: [shop]
certificates:
  description: The certificates that are in place now.
  returned: outside of check mode
  type: list
  elements: dict
  sample:
    - name: shop
      issuer: O=Slipway self-signed,CN=shop
      names: [shop.example.com, www.shop.example.com]
      not_after: "2029-02-23T04:41:10+00:00"
"""

import dataclasses
import datetime
import functools
import grp
import os
import pwd
import re
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.generations import (
    File,
    Generations,
    lies_at,
    make_directory,
)

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

    @property
    def files(self) -> list[File]:
        """The files that hold it, owned by who runs this, which is root but in tests."""
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid).gr_name
        return [
            File("fullchain.pem", self.fullchain.encode(), 0o644, user.pw_name, group),
            File("privkey.pem", self.privkey.encode(), 0o600, user.pw_name, group),
        ]

    def lies_in(self, directory: Path | None) -> bool:
        """Whether just this pair is in a directory, with the right modes and owners."""
        return directory is not None and all(lies_at(file, directory / file.path) for file in self.files)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "apps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "domains": {"type": "list", "elements": "str", "required": True},
                    "fullchain": {"type": "str"},
                },
            },
            # Keys stand apart: Ansible logs a list as one text, in which it does not find a secret that has many lines.
            "privkeys": {"type": "dict", "default": {}, "no_log": True},
            "root": {"type": "path", "default": "/etc/slipway/certificates"},
            "pending": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module.params, check=module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def converge(options: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Give each app the certificate that it shall have.

    Args:
        options: the module's options.
        check: say only what would change.

    Returns:
        The module's result.

    Raises:
        Refused: a certificate could not be read or made; those of the apps before it are in place.
    """
    root = Path(options["root"])
    result: dict[str, Any] = {"changed": False, "changed_apps": [], "diff": [], "certificates": []}
    for app in options["apps"]:
        generations = Generations(root / ".generations" / app["name"], root / app["name"])
        current = generations.current()
        before = Pair.at(current)
        wanted: Pair | None = None
        if app.get("fullchain"):
            wanted = Pair(app["fullchain"], options["privkeys"][app["name"]])
        elif before and _still_good(before, app["domains"]):
            wanted = before
        if wanted is None or not wanted.lies_in(current):
            result["changed"] = True
            result["changed_apps"].append(app["name"])
            if not check:
                wanted = wanted or self_signed(app["name"], app["domains"])
                _replace(generations, wanted, options.get("pending"))
            result["diff"].append(
                {
                    "before_header": str(generations.link),
                    "after_header": str(generations.link),
                    "before": _description(before),
                    "after": _description(wanted) if wanted else _announcement(app["name"], app["domains"]),
                }
            )
        if not check and wanted:
            found = inspect(wanted.fullchain)
            result["certificates"].append(
                {
                    "name": app["name"],
                    "issuer": found.issuer,
                    "names": list(found.names),
                    "not_after": found.not_after.isoformat(),
                }
            )
    return result


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
    return Pair(fullchain=_pem(output, "CERTIFICATE"), privkey=_pem(output, "PRIVATE KEY"))


def _still_good(pair: Pair, domains: Sequence[str]) -> bool:
    """Whether a self-signed certificate can stay."""
    try:
        found = inspect(pair.fullchain)
        key = _openssl("pkey -pubout", pair.privkey)
    except Refused:
        return False
    return (
        f"O={SELF_SIGNED}" in found.issuer.split(",")
        and set(found.names) == set(domains)
        and not found.is_aging(datetime.datetime.now(datetime.timezone.utc))
        and key.strip() == found.public_key.strip()
    )


def _replace(generations: Generations, pair: Pair, pending: str | None) -> None:
    if generations.link.exists() and not generations.link.is_symlink():
        raise Refused(f"{generations.link} is not a link of Slipway's; move it away and run this again")
    if pending:
        make_directory(Path(pending).parent)
        Path(pending).touch()
    make_directory(generations.link.parent)
    make_directory(generations.store.parent, 0o700)
    generations.activate(generations.stage(pair.files))
    generations.prune(generations.newest(2))


def _description(pair: Pair | None) -> str:
    try:
        return str(inspect(pair.fullchain)) if pair else ""
    except Refused:
        return "unreadable\n"


def _announcement(name: str, domains: Sequence[str]) -> str:
    return f"issuer: CN={name},O={SELF_SIGNED}\nnames: {', '.join(sorted(domains))}\ngood for: {DAYS} days\n"


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


if __name__ == "__main__":
    main()
