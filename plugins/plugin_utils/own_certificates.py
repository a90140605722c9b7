"""What is looked at in a user's own certificate before any host gets it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import re
import ssl
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

# A warning from then on: the next deploy may be far away.
SOON = datetime.timedelta(days=14)


@dataclasses.dataclass(frozen=True)
class Option:
    """A file as the user named it, for messages.

    Attributes:
        variable: where it was said, such as ``slipway_apps.shop.certificate.privkey``.
        path: what was said.
    """

    variable: str
    path: str

    def wrong(self, what: str) -> str:
        """A message on this option."""
        return f'{self.variable} is "{self.path}": {what}'


@dataclasses.dataclass(frozen=True)
class OwnCertificate:
    """A user's certificate: two options and what their files hold.

    Attributes:
        fullchain: the option of the certificate with its chain.
        privkey: the option of the private key.
        fullchain_text: the first one's content.
        privkey_text: the second one's content.
    """

    fullchain: Option
    privkey: Option
    fullchain_text: str
    privkey_text: str = dataclasses.field(repr=False)

    def mistakes(self, domains: Sequence[str], now: datetime.datetime) -> list[str]:
        """Everything for which nginx or a browser would refuse it, one message each."""
        found: list[str] = []
        certificate = self._certificate(found)
        key = self._public_key(found)
        if certificate is None:
            return found
        if key is not None and key != _encoded(certificate.public_key()):
            found.append(
                self.privkey.wrong(f"it must be the key of the first certificate in {self.fullchain.path}, and is not")
            )
        if now > certificate.not_valid_after_utc:
            found.append(self.fullchain.wrong(f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it"))
        if now < certificate.not_valid_before_utc:
            found.append(self.fullchain.wrong(f"it is not good before {certificate.not_valid_before_utc:%Y-%m-%d}"))
        if trouble := _broken_chain(self._certificates([])):
            found.append(self.fullchain.wrong(trouble))
        names = _names(certificate)
        missing = [domain for domain in domains if not _covers(names, domain)]
        if missing:
            found.append(
                self.fullchain.wrong(
                    f"it must cover every domain of the app, and lacks {', '.join(missing)}; "
                    f"it covers {', '.join(sorted(names)) or 'none'}"
                )
            )
        return found

    def warnings(self, now: datetime.datetime) -> list[str]:
        """What is right today but not for long."""
        certificate = self._certificate([])
        if certificate is None or certificate.not_valid_after_utc - now > SOON:
            return []
        return [self.fullchain.wrong(f"it expires on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it soon")]

    def _certificate(self, found: list[str]) -> x509.Certificate | None:
        certificates = self._certificates(found)
        return certificates[0] if certificates else None

    def _certificates(self, found: list[str]) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self.fullchain_text.encode())
        except ValueError:
            found.append(self.fullchain.wrong("it must hold certificates in PEM, the app's own first, and does not"))
            return []

    def _public_key(self, found: list[str]) -> bytes | None:
        try:
            return _encoded(serialization.load_pem_private_key(self.privkey_text.encode(), None).public_key())
        except TypeError:
            found.append(
                self.privkey.wrong(
                    "it asks for a passphrase, which nobody can give at a reboot; take the passphrase away "
                    "and encrypt the file with ansible-vault"
                )
            )
        except (ValueError, UnsupportedAlgorithm):
            found.append(self.privkey.wrong("it must hold a private key in PEM, and does not"))
        return None


def read(loader: DataLoader, app: str, certificate: Mapping[str, str]) -> OwnCertificate:
    """Read the files of an app's own certificate, which may be encrypted with ansible-vault.

    Args:
        loader: Ansible's reader of the controller's files.
        app: the app's name.
        certificate: the absolute paths ``fullchain`` and ``privkey``.

    Raises:
        AnsibleActionFail: one of them cannot be read.
    """
    fullchain, privkey = (
        Option(f"slipway_apps.{app}.certificate.{key}", certificate[key]) for key in ("fullchain", "privkey")
    )
    texts = []
    for option in (fullchain, privkey):
        try:
            texts.append(str(loader.get_text_file_contents(option.path)))
        except AnsibleError as error:
            raise AnsibleActionFail(option.wrong(f"it cannot be read on the controller: {error}")) from error
    return OwnCertificate(fullchain, privkey, *texts)


def _broken_chain(chain: Sequence[x509.Certificate]) -> str:
    """What is wrong with the way from the first certificate to a root, or nothing."""
    for lower, upper in itertools.pairwise(chain):
        if not _is_issued_by(lower, upper):
            return f"each certificate must be issued by the next one, and {_called(lower.subject)} is not"
    last = chain[-1]
    roots = _known_roots()
    if _is_issued_by(last, last) or not roots or any(_is_issued_by(last, root) for root in roots):
        return ""
    return (
        f"its chain ends with {_called(last.subject)}, and {_called(last.issuer)}, which issued that, is no root that "
        "this controller knows; append the certificate that is missing, or the root of your own CA"
    )


def _is_issued_by(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@functools.cache
def _known_roots() -> tuple[x509.Certificate, ...]:
    """What this controller trusts; nothing where it keeps that in another form than a file."""
    path = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    try:
        text = Path(path).read_bytes()
    except OSError:
        return ()
    roots = []
    for found in re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL):
        # Some roots of the world are older than the rules.
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError):
            roots.append(x509.load_pem_x509_certificate(found))
    return tuple(roots)


def _called(name: x509.Name) -> str:
    return f'"{name.rfc4514_string()}"'


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}


def _covers(names: set[str], domain: str) -> bool:
    """Whether a name is among these, itself or by a wildcard for its leftmost label (RFC 9525)."""
    return domain in names or f"*.{domain.partition('.')[2]}" in names
