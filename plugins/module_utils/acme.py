"""Certificates from a CA that speaks ACME: what is wished for, what certbot holds, and the way from one to the other.

It runs on the host, at a timer's call and at a play's, in two halves: ``run`` as a user of its own that may do nothing
but ask the CA, ``adopt`` as root, which takes what was issued into the realms. A host keeps a copy of this file, so it
imports nothing but the standard library and what lies beside it; DNS is asked with dnspython, certbot's neighbour.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import contextlib
import dataclasses
import datetime
import fcntl
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .realms import Front, Pair, Realm, Refused, inspect

CHALLENGES = ".well-known/acme-challenge"
# Where a CA asks, without TLS and, if it is sent there, with it.
PORTS = (80, 443)
# Seconds for one question over HTTP; Let's Encrypt waits 10.
PATIENCE = 5.0
# What certbot says of itself on every failure.
_IDLE_TALK = re.compile(
    r"^\s*$|^- - -|^Saving debug log|^Ask for help|^Requesting a cert|^Renewing an existing|^Account registered|^Hint:"
    r"|^Certbot failed to auth|^Some challenges have|^An unexpected error|^The Certificate Authority reported"
    r"|^Processing /|^All renewals failed|^The following renewals|^\d+ renew failure|\((failure|success)\)$"
)
# How a failure looks, and what is said of it; the address of the CA stands before that.
_PLAINLY = (
    (re.compile(r"\[Errno -?\d+\] ([\w ,]+)"), "it cannot be reached: {}"),
    (re.compile(r"Response \[(429)\]"), "it answers with status {}, too many requests: leave it alone for a while"),
    (re.compile(r"Response \[(\d+)\]"), "it answers with status {}"),
)
# A CA may refuse any nonce, and wants the request again (RFC 8555, 6.5); certbot tries twice.
_NONCE = re.compile(r"anti-replay nonce|badNonce")
_NONCE_TRIES = 5
_NO_ACCOUNT = re.compile(r"accountDoesNotExist|Account .* (does not exist|not found)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What one app wants of a CA.

    Attributes:
        name: the app's name.
        domains: the host names that the certificate shall be for.
        server: the address of the CA's ACME directory.
        email: where the CA may write to; empty is nowhere.
        key_type: ``ecdsa`` (P-256) or ``rsa`` (2048 bits), as certbot names them.
        profile: the CA's profile; empty is its default.
        dns: certbot's plugin for DNS-01, such as ``rfc2136``; empty is HTTP-01.
        propagation_seconds: how long DNS-01 waits until all of the zone's servers know, in seconds.
        precheck: whether each challenge's path is fetched before the CA is asked.
        eab_kid: the name of an account at the CA that this one shall belong to; empty is none.
        eab_hmac_key: the key to that.
    """

    name: str
    domains: tuple[str, ...]
    server: str
    email: str = ""
    key_type: str = "ecdsa"
    profile: str = ""
    dns: str = ""
    propagation_seconds: int = 30
    precheck: bool = True
    eab_kid: str = ""
    eab_hmac_key: str = dataclasses.field(default="", repr=False)

    @classmethod
    def of(cls, text: str) -> Wish:
        """Read what :meth:`text` has written."""
        values = json.loads(text)
        return cls(**{**values, "domains": tuple(values["domains"])})

    def text(self) -> str:
        """The wish as a file holds it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @property
    def authenticator(self) -> str:
        """How certbot names the way in which the domains are proved."""
        return f"dns-{self.dns}" if self.dns else "webroot"


@dataclasses.dataclass(frozen=True)
class Lineage:
    """A certificate that certbot holds and renews."""

    server: str
    key_type: str
    profile: str
    authenticator: str
    names: frozenset[str]
    is_good: bool

    def suits(self, wish: Wish) -> bool:
        """Whether it was issued in the way that is wished for, for whatever names."""
        return self.is_good and (self.server, self.key_type, self.profile, self.authenticator) == (
            wish.server,
            wish.key_type,
            wish.profile,
            wish.authenticator,
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a wish.

    Attributes:
        state: ``good``, ``waiting`` for DNS or a way to this host, or ``failed`` at the CA.
        messages: why, a line each.
    """

    state: str
    messages: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Desk:
    """Where wishes are laid down, and what came of them is found.

    Attributes:
        root: the root of the file system, another directory in tests.
        owner: who writes wishes.
        group: the group of certbot's user, who reads them.
    """

    root: Path = Path("/")
    owner: str = "root"
    group: str = "slipway-acme"

    @property
    def wishes(self) -> Path:
        """The wishes, one file for each app; only root may write there."""
        return self.root / "etc/slipway/acme"

    @property
    def state(self) -> Path:
        """What certbot's user may write to."""
        return self.root / "var/lib/slipway-acme"

    @property
    def webroot(self) -> Path:
        """What the front serves to the CA."""
        return self.state / "webroot"

    @property
    def certbot(self) -> Path:
        """certbot's directory of accounts and lineages."""
        return self.state / "certbot"

    @property
    def report(self) -> Path:
        """What came of the last run."""
        return self.state / "report.json"

    def wish(self, name: str) -> Path:
        """The file of an app's wish."""
        return self.wishes / f"{name}.json"

    def credentials(self, name: str) -> Path:
        """The file of what an app's DNS plugin needs."""
        return self.wishes / f"{name}.ini"

    def renewal(self, name: str) -> Path:
        """The file that makes an app's renewal due now."""
        return self.wishes / f"{name}.renew"

    def wishes_for(self, name: str) -> bool:
        """Whether an app has a wish."""
        return self.wish(name).exists()

    def all(self) -> Iterator[Wish]:
        """All wishes, by name."""
        for path in sorted(self.wishes.glob("*.json")):
            yield Wish.of(path.read_text())

    def is_forced(self, name: str) -> bool:
        """Whether a renewal was asked for after the newest certificate was issued."""
        try:
            issued = (self.live(name) / "fullchain.pem").stat().st_mtime
            return self.renewal(name).stat().st_mtime > issued
        except OSError:
            return False

    def forget(self, name: str) -> None:
        """Take a wish away; the next run lets go of what certbot holds for it."""
        for path in (self.wish(name), self.credentials(name), self.renewal(name)):
            path.unlink(missing_ok=True)

    def live(self, name: str) -> Path:
        """The directory of the newest certificate of a lineage."""
        return self.certbot / "live" / name

    def lineage(self, name: str) -> Lineage | None:
        """What certbot holds for an app, or None where that is nothing, or not whole."""
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        pair = Pair.at(self.live(name))
        try:
            # The file begins with keys of no section.
            text = (self.certbot / "renewal" / f"{name}.conf").read_text()
            parser.read_string(f"[lineage]\n{text}")
            found = parser["renewalparams"]
            if pair is None or not pair.matches:
                return None
            certificate = inspect(pair.fullchain)
        except (OSError, KeyError, configparser.Error, Refused):
            return None
        return Lineage(
            server=found.get("server", ""),
            key_type=found.get("key_type", ""),
            profile=found.get("required_profile", ""),
            authenticator=found.get("authenticator", ""),
            names=frozenset(certificate.names),
            is_good=certificate.not_after > _now(),
        )

    def discard(self, name: str) -> None:
        """Remove all that certbot holds for an app; what it is renewed by goes first."""
        (self.certbot / "renewal" / f"{name}.conf").unlink(missing_ok=True)
        for directory in (self.live(name), self.certbot / "archive" / name):
            shutil.rmtree(directory, ignore_errors=True)

    def held(self) -> set[str]:
        """The apps for which certbot holds anything, be it half made."""
        return {path.stem for path in self.certbot.glob("renewal/*.conf")} | {
            path.name for kind in ("live", "archive") for path in self.certbot.glob(f"{kind}/*") if path.is_dir()
        }

    def outcomes(self) -> dict[str, Outcome]:
        """What came of each wish in the last run."""
        try:
            found = json.loads(self.report.read_text())
            return {name: Outcome(str(of["state"]), tuple(map(str, of["messages"]))) for name, of in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def names_to_ask(wish: Wish, held: Lineage | None, reachable: Iterable[str]) -> list[str]:
    """The names that a certificate is asked for now; none where nothing is to be asked.

    A name that is served today is not given up because it cannot be reached right now.
    """
    wanted = [domain for domain in wish.domains if domain in set(reachable)]
    covered = held.names & set(wish.domains) if held and held.is_good else frozenset()
    if not wanted or covered - set(wanted):
        return []
    if held and held.suits(wish) and held.names == set(wanted):
        return []
    return wanted


# --- the half that asks


class Certbot:
    """certbot, and what has to be so before it may ask.

    Args:
        desk: where everything lies.
        command: how certbot is started.
        addresses: what DNS says of a name; raises ``Refused`` where that is nothing.
    """

    def __init__(
        self,
        desk: Desk,
        command: Sequence[str] = ("/opt/slipway/certbot/bin/certbot",),
        addresses: Callable[[str], list[str]] | None = None,
    ) -> None:
        self.desk = desk
        self.command = command
        self.addresses = addresses or ask_dns

    def run(self) -> bool:
        """See to every wish, and write down what came of it; whether none failed at its CA."""
        wishes = list(self.desk.all())
        for name in self.desk.held() - {wish.name for wish in wishes}:
            self.desk.discard(name)
        outcomes = {wish.name: self.see_to(wish) for wish in wishes}
        text = json.dumps({name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()}, indent=1)
        staged = self.desk.report.with_suffix(".new")
        staged.write_text(text)
        staged.replace(self.desk.report)
        for name, outcome in outcomes.items():
            for message in outcome.messages:
                print(f"{name}: {message}")
        return all(outcome.state != "failed" for outcome in outcomes.values())

    def see_to(self, wish: Wish) -> Outcome:
        """Issue or renew what one app needs, if it needs anything."""
        held = self.desk.lineage(wish.name)
        missing = self._unreachable(wish) if names_to_ask(wish, held, wish.domains) else {}
        asked = names_to_ask(wish, held, [domain for domain in wish.domains if domain not in missing])
        messages = [*missing.values()]
        failure = ""
        if asked:
            failure = self.issue(wish, asked)
        elif held:
            failure = self.renew(wish, sorted(held.names))
        if failure:
            return Outcome("failed", (*messages, failure))
        return Outcome("waiting" if missing else "good", tuple(messages))

    def issue(self, wish: Wish, names: Sequence[str]) -> str:
        """Have a certificate issued for these names; what went wrong, or nothing."""
        if self.desk.lineage(wish.name) is None:
            # Half of a lineage would stand in the way of a whole one.
            self.desk.discard(wish.name)
        if wish.dns:
            way = [
                f"--dns-{wish.dns}",
                f"--dns-{wish.dns}-credentials={self.desk.credentials(wish.name)}",
                f"--dns-{wish.dns}-propagation-seconds={wish.propagation_seconds}",
            ]
        else:
            way = ["--webroot", f"--webroot-path={self.desk.webroot}"]
        arguments = [
            "certonly",
            *way,
            f"--cert-name={wish.name}",
            f"--server={wish.server}",
            f"--key-type={wish.key_type}",
            *([f"--required-profile={wish.profile}"] if wish.profile else []),
            *([f"--email={wish.email}", "--no-eff-email"] if wish.email else ["--register-unsafely-without-email"]),
            "--agree-tos",
            "--force-renewal",
            "--renew-with-new-domains",
            *(f"--domain={name}" for name in names),
        ]
        failure = self._ask(arguments, wish)
        if failure and _NO_ACCOUNT.search(failure) and self._move_account(wish):
            failure = self._ask(arguments, wish)
        return failure

    def renew(self, wish: Wish, names: Sequence[str]) -> str:
        """Renew what is due, by the time that is left and by what the CA advises; what went wrong, or nothing."""
        forced = self.desk.is_forced(wish.name)
        failure = self._ask(
            [
                "renew",
                f"--cert-name={wish.name}",
                *(["--force-renewal"] if forced else []),
                "--no-random-sleep-on-renew",
            ],
            wish,
        )
        return self.issue(wish, names) if failure and _NO_ACCOUNT.search(failure) else failure

    def _ask(self, arguments: Sequence[str], wish: Wish) -> str:
        failure = ""
        for _ in range(_NONCE_TRIES):
            failure = self._ask_once(arguments, wish)
            if not _NONCE.search(failure):
                break
        return failure

    def _ask_once(self, arguments: Sequence[str], wish: Wish) -> str:
        options = {"eab-kid": wish.eab_kid, "eab-hmac-key": wish.eab_hmac_key} if wish.eab_kid else {}
        own = self.desk.state / "certbot.ini"
        # In a file, for command lines are seen by everybody.
        handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.writelines(f"{key} = {value}\n" for key, value in options.items())
        try:
            done = subprocess.run(
                [
                    *self.command,
                    *arguments,
                    "--non-interactive",
                    "--no-directory-hooks",
                    f"--config={own}",
                    f"--config-dir={self.desk.certbot}",
                    f"--work-dir={self.desk.state / 'work'}",
                    f"--logs-dir={self.desk.state / 'logs'}",
                    "--max-log-backups=20",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        finally:
            own.unlink(missing_ok=True)
        return reason(done.stdout, wish.server) if done.returncode else ""

    def _move_account(self, wish: Wish) -> bool:
        """Put aside an account that the CA does not know any more, so that a new one is made."""
        address = urllib.parse.urlsplit(wish.server)
        account = self.desk.certbot / "accounts" / address.netloc / address.path.strip("/")
        if not account.is_dir():
            return False
        gone = self.desk.certbot / "accounts-gone"
        gone.mkdir(mode=0o700, exist_ok=True)
        account.rename(gone / f"{address.netloc}-{time.time():.0f}")
        return True

    # --- what the CA will see

    def _unreachable(self, wish: Wish) -> dict[str, str]:
        """The domains that the CA could not prove now, each with the reason."""
        if wish.dns or not wish.precheck:
            return {}
        directory = self.desk.webroot / CHALLENGES
        directory.mkdir(parents=True, exist_ok=True)
        for path in (self.desk.webroot, directory.parent, directory):
            path.chmod(0o755)
        token = directory / f"slipway-{secrets.token_urlsafe(12)}"
        token.write_text(secrets.token_urlsafe(24))
        token.chmod(0o644)
        try:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                reasons = pool.map(lambda domain: (domain, self._reason(domain, token)), wish.domains)
                return {domain: said for domain, said in reasons if said}
        finally:
            token.unlink()

    def _reason(self, domain: str, token: Path) -> str:
        try:
            addresses = self.addresses(domain)
        except Refused as error:
            return str(error)
        path = f"/{CHALLENGES}/{token.name}"
        silent = []
        for address in addresses:
            try:
                status, content = fetch(address, domain, path)
            except (OSError, http.client.HTTPException) as error:
                silent.append(f"{address} does not answer at port {PORTS[0]} ({error or type(error).__name__})")
                continue
            if content != token.read_bytes():
                return (
                    f"DNS says that {domain} is {address}, which answers http://{domain}/{CHALLENGES}/ with status "
                    f"{status} and not with this host's file: it may be another host, or a proxy before this one"
                )
        # As a CA does: one address that answers is enough, for IPv6 is often announced and not there.
        if len(silent) < len(addresses):
            return ""
        return f"DNS says that {domain} is {', '.join(addresses)}: {'; '.join(silent)}"


def ask_dns(domain: str) -> list[str]:
    """The addresses of a name, those of IPv6 first, as CAs prefer them; /etc/hosts is not asked.

    Raises:
        Refused: there is none.
    """
    import dns.exception
    import dns.resolver

    try:
        answers = dns.resolver.resolve_name(domain, lifetime=2 * PATIENCE)
        return [*answers.addresses(socket.AF_INET6), *answers.addresses(socket.AF_INET)]
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        raise Refused(f"DNS knows no address of {domain}") from None
    except dns.exception.DNSException as error:
        raise Refused(f"DNS does not say where {domain} is: {error}") from error


def fetch(address: str, domain: str, path: str) -> tuple[int, bytes]:
    """Ask one address for a path of a domain, as a CA does: over HTTP, or wherever that sends it at the same host.

    Returns:
        The status and the first 1,000 bytes.

    Raises:
        OSError: nobody answers.
        http.client.HTTPException: the answer is none.
    """
    secure = False
    for _ in range(3):
        connection = socket.create_connection((address, PORTS[secure]), PATIENCE)
        if secure:
            # No CA looks at the certificate that it is about to replace.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname=domain)
        client = http.client.HTTPConnection(domain)
        client.sock = connection
        with contextlib.closing(client):
            client.request("GET", path, headers={"User-Agent": "slipway", "Connection": "close"})
            answer = client.getresponse()
            target = urllib.parse.urlsplit(answer.getheader("Location", ""))
            moved = answer.status in (301, 302, 307, 308) and target.hostname in (domain, None)
            if not moved:
                return answer.status, answer.read(1000)
        secure = target.scheme == "https" or (secure and not target.scheme)
        path = target.path or "/"
    return 310, b""


def reason(output: str, server: str) -> str:
    """What certbot says of a failure, in one line, without what it says of every failure.

    Args:
        output: all that it said.
        server: the address of the CA's directory.
    """
    lines = [line.strip() for line in output.splitlines() if not _IDLE_TALK.search(line.strip())]
    text = re.sub(r"Failed to renew certificate \S+ with error: ", "", " ".join(lines))
    for pattern, said in _PLAINLY:
        if found := pattern.search(text):
            text = said.format(found[1].strip())
            break
    return f"{server}: {text or 'certbot failed and said nothing'}"


# --- the half that takes it into the realms


def adopt(desk: Desk, realms: Path, front: Front) -> list[str]:
    """Serve what certbot holds for each wish.

    Returns:
        What could not be, a line each.
    """
    troubles = []
    changed = False
    for wish in desk.all():
        try:
            held = Pair.at(desk.live(wish.name))
            if held is None or desk.lineage(wish.name) is None:
                continue
            # Only certificates: whatever else stands in a file that everybody may read is not for them.
            pair = Pair(_certificates(held.fullchain), held.privkey)
            realm = Realm(realms, wish.name)
            if not realm.holds(pair, front):
                realm.put(pair, front)
                changed = True
            if not desk.is_forced(wish.name):
                desk.renewal(wish.name).unlink(missing_ok=True)
        except (Refused, OSError) as error:
            troubles.append(f"{wish.name}: {error}")
    if changed or (front.pending and front.pending.exists()):
        try:
            front.take_up()
        except Refused as error:
            troubles.append(str(error))
    return troubles


def _certificates(text: str) -> str:
    found = re.findall(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n", text)
    return "".join(found)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@contextlib.contextmanager
def alone(desk: Desk) -> Iterator[None]:
    """Wait until no other run is at work."""
    with open(desk.state / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str], environment: Mapping[str, Any]) -> int:
    """Run one of the halves: ``run``, or ``adopt REALMS`` with the front's properties in the environment."""
    desk = Desk()
    if arguments[0] == "run":
        with alone(desk):
            return 0 if Certbot(desk).run() else 1
    pending = environment.get("FRONT_PENDING")
    words = (environment.get(f"FRONT_{name}", "") for name in ("VALIDATE", "SERVICE", "KEY_GROUP"))
    front = Front(Path(pending) if pending else None, *words)
    troubles = adopt(desk, Path(arguments[1]), front)
    print(*troubles, sep="\n", file=sys.stderr, end="\n" if troubles else "")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
