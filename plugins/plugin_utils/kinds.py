"""What a value may be, beyond its type: one small function for each kind, used by resolve_apps.

Each takes a value and returns nothing, or raises ``ValueError`` with what is allowed, to be read after
"slipway_apps.shop.domains[0] is ...: ".
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import idna

from ansible_collections.slipway.asgi.plugins.module_utils.git import is_ssh
from ansible_collections.slipway.asgi.plugins.module_utils.host import APP_NAME
from ansible_collections.slipway.asgi.plugins.plugin_utils.issuers import DIRECTORIES, SELF_SIGNED

Kind = Callable[[Any], None]


class Unshown(ValueError):
    """A value that is wrong and may hold a secret, so that no message shows it."""


# RFC 1035: a label has at most 63 characters, a name at most 253.
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# Names of Slipway's own users, units and directories; and slipway-shop-check is a unit of the app shop.
_OWN_NAMES = re.compile(r"acme|build|certificates|firewall|metrics|pending|wake|way-back.*|.*-(build|check|migrate)")
# What Slipway or systemd sets. The user's value would win: a reload would send its signal to the user's MAINPID.
_RESERVED_ENVIRONMENT = re.compile(
    r"SLIPWAY_.*|(CREDENTIALS|STATE|RUNTIME)_DIRECTORY|NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*|SYSTEMD_.*|MAINPID"
    r"|INVOCATION_ID|JOURNAL_STREAM|HOME|PATH|USER"
)
# Fewer than RFC 9110 allows: the name becomes part of a variable of nginx.
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
# Headers by which an answer is framed, or of which nginx sends one of its own.
_OWN_HEADERS = re.compile(
    r"connection|content-(encoding|length|type)|date|keep-alive|server|te|trailer|transfer-encoding|upgrade|x-request-id",
    re.IGNORECASE,
)
# Bytes. The kernel takes 128 KiB for one variable or argument of a process (MAX_ARG_STRLEN), and for all of them a
# quarter of the stack, which is 2 MiB. systemd takes 1 MiB for all credentials of a unit (CREDENTIALS_TOTAL_SIZE_MAX).
# nginx takes no word that does not fit the 4096 bytes of its buffer (NGX_CONF_BUFFER).
_LONGEST_LINE = 100_000
_LARGEST_ENVIRONMENT = 500_000
LARGEST_SECRETS = 1_000_000
_LONGEST_HEADER = 4_000
# Bytes: a file's name has 255 at most (NAME_MAX), and that of a secret ends with .env.
_LONGEST_NAME = 250
# What systemd takes for no character (unichar_is_valid in src/basic/utf8.c): it refuses the file, and logs the value.
_NO_CHARACTER = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(last - 1)}{chr(last)}" for last in range(0xFFFF, 0x110000, 0x10000))
    + "]"
)
# Where no app may write: what is the system's, Slipway's, hidden from the app or its own already, and what holds such.
_PROTECTED = re.compile(
    r"/(bin|boot|dev|etc|home|lib(32|64|x32)?|proc|root|run|sbin|sys|tmp|usr)(/.*)?"
    r"|/(opt|srv|var/cache|var/lib)/slipway(-acme)?(/.*)?"
    r"|/var/(backups|lib/(apt|dpkg|nginx|private|systemd)|lock|log/(journal|nginx)|run|spool|tmp)(/.*)?"
    r"|/(opt|srv|var|var/(cache|lib|log))"
)
# Paths of every site that Slipway answers itself.
_OWN_PATHS = ("/.slipway", "/.well-known/acme-challenge")


def _pattern(expression: str, allowed: str) -> Kind:
    matcher = re.compile(expression, re.ASCII)

    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not matcher.fullmatch(str(value)):
            raise ValueError(allowed)

    return check


def _whole(lowest: int, highest: int, meaning: str = "") -> Kind:
    def check(value: Any) -> None:
        is_number = type(value) is int or re.fullmatch(r"\d{1,12}", str(value), re.ASCII)
        if not is_number or not lowest <= int(value) <= highest:
            raise ValueError(f"a number from {lowest} to {highest} is needed{meaning}")

    return check


def read_by_yaml(value: Any) -> str:
    """What YAML made of something that was to be a text, and how to keep it from that; "" for all else."""
    if value is None:
        return "YAML reads this as nothing; put it in quotes"
    if isinstance(value, bool):
        return "YAML reads this as a boolean; put it in quotes"
    if isinstance(value, float):
        return "YAML reads this as a number and may change its digits; put it in quotes"
    if isinstance(value, datetime.date):
        return "YAML reads this as a date; put it in quotes"
    return ""


def plain(value: Any, written: str) -> None:
    """A text that can be encoded, or a number that says what was written.

    Args:
        value: as YAML has read it.
        written: what stands where a number was written, such as ``0123``, or "" where that is not known.
    """
    if isinstance(value, str):
        encodable(value)
    elif written not in ("", str(value)):
        raise ValueError(f"YAML reads {written} as {value}; write that, or put it in quotes if it is a text")


def encodable(value: str) -> None:
    """A text that a file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds one half of a surrogate pair, which no text has") from None
    if "\0" in value:
        raise ValueError("it holds a NUL byte, which no text has")


def app_name(value: Any) -> None:
    """An app's name, which becomes part of user, unit and socket names (31 characters at most for a user)."""
    if not isinstance(value, str) or not APP_NAME.fullmatch(value):
        raise ValueError("a name is 1 to 23 lower-case letters, digits and dashes, and begins with a letter")
    if _OWN_NAMES.fullmatch(value):
        raise ValueError("this name is taken by Slipway itself; choose another")


def domain(value: Any) -> None:
    """A host name in ASCII, such as shop.example.com, by the rules of IDNA 2008; the leftmost label may be ``*``."""
    text = str(value)
    if "://" in text:
        raise ValueError(f"a domain has no scheme; write {text.split('://', 1)[1].split('/')[0] or 'shop.example.com'}")
    bare = text.removeprefix("*.")
    if not text.isascii():
        try:
            form = idna.encode(bare.rstrip("."), uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"no domain is written like this: {error}") from None
        raise ValueError(f"a domain is written in its ASCII form; write {'*.' if bare != text else ''}{form}")
    labels = bare.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            "a domain is lower-case labels of letters, digits and dashes joined by dots, without port, path or "
            "trailing dot, such as shop.example.com"
        )
    # What browsers take for an address of IPv4 (the URL standard's "ends in a number").
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        raise ValueError("a domain does not end in a number, and an IP address is none")
    for label in labels:
        if label[2:4] == "--":
            try:
                idna.ulabel(label)
            except idna.IDNAError as error:
                raise ValueError(f"{label} is the ASCII form of nothing: {error}") from None


def environment_name(value: Any) -> None:
    """A name that a process's environment can hold and that Slipway does not set itself."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("an environment name is letters, digits and underscores, and does not begin with a digit")
    if _RESERVED_ENVIRONMENT.fullmatch(value):
        raise ValueError("this name is set by Slipway or systemd; choose another")


def secret_environment_name(value: Any) -> None:
    """The same, short enough for the file that holds its value."""
    environment_name(value)
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"the name becomes that of a file, and may have {_LONGEST_NAME} characters")


def environment(value: Any) -> None:
    """All variables together."""
    size = sum(len(f"{name}={text}\0".encode(errors="replace")) for name, text in value.items())
    if size > _LARGEST_ENVIRONMENT:
        raise ValueError(f"all together may have {_LARGEST_ENVIRONMENT:,} bytes, and these have {size:,}")


def line(value: Any) -> None:
    """One line of text that a process can be given: no line break, no NUL byte, and not too long."""
    if hint := read_by_yaml(value):
        raise ValueError(hint)
    if not isinstance(value, (str, int)):
        raise ValueError("a single text or whole number is needed")
    text = str(value)
    if any(character in text for character in "\n\r\0"):
        raise ValueError("it must be a single line, without line breaks and NUL bytes")
    encodable(text)
    if found := _NO_CHARACTER.search(text):
        raise ValueError(f"it holds U+{ord(found[0]):04X}, which is no character")
    if len(text.encode()) > _LONGEST_LINE:
        raise ValueError(f"it may have {_LONGEST_LINE:,} bytes, and has {len(text.encode()):,}; a file can hold more")


def header_value(value: Any) -> None:
    """What a header says: one line without control characters."""
    line(value)
    text = str(value)
    if not text.isprintable():
        raise ValueError("it must be without control characters")
    # As the templates of nginx quote it.
    size = len(re.sub(r'["\\]', r"\\\g<0>", text).replace("$", "${slipway_dollar}").encode())
    if size > _LONGEST_HEADER:
        raise ValueError(f"in nginx's configuration it may have {_LONGEST_HEADER:,} bytes, and would have {size:,}")


def headers(value: Any) -> None:
    """Headers by name, each once, whatever the case."""
    lower = [str(name).lower() for name in value]
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if twice:
        raise ValueError(f"each header may stand once, whatever its case; twice are: {', '.join(twice)}")


def directives(value: Any) -> None:
    """Directives for nginx, which says itself what it does not take."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("one or more directives of nginx are needed, such as proxy_read_timeout 5m;")
    if not value.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("directives are without control characters other than tabs and line breaks")


def secret_value(value: Any) -> None:
    """What a secret holds: some text. The message never holds the value."""
    if not isinstance(value, str) or not value:
        raise ValueError("a secret is a text that is not empty")
    if "\0" in value:
        raise ValueError("a secret holds no NUL byte")
    encodable(value)


def environment_secret(value: Any) -> None:
    """A secret that an environment can hold, of one line or more. The message never holds the value."""
    if _NO_CHARACTER.search(value):
        raise ValueError("an environment holds whole characters of Unicode only, and no non-characters such as U+FFFE")
    if len(value.encode()) > _LONGEST_LINE:
        raise ValueError(f"an environment holds at most {_LONGEST_LINE} bytes of each name; secrets holds more")


def writable(value: Any) -> None:
    """A directory of the operator's own on the host, without what a unit would read as more than a path."""
    directory(value)
    if _PROTECTED.fullmatch(value):
        raise ValueError("this is, or holds, what is the system's or Slipway's; choose a directory such as /srv/media")


def header(value: Any) -> None:
    """The name of an HTTP header."""
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ValueError("a header's name is letters, digits and dashes")
    if _OWN_HEADERS.fullmatch(value):
        raise ValueError("this header is set by nginx or the app alone")


def source(value: Any) -> None:
    """Where an app comes from: one of path and git, and of git what its address takes."""
    if ("path" in value) == ("git" in value):
        raise ValueError("exactly one of path and git is needed")
    for key in ("version", "key", "token", "username", "host_key"):
        if key in value and "path" in value:
            raise ValueError(f"{key} goes with git; a path is taken as it is")
    if {"key", "token"} <= set(value):
        raise ValueError("of key and token one is needed: key for an ssh address, token for an https address")
    for key in ("key", "host_key"):
        if key in value and not is_ssh(str(value["git"])):
            raise ValueError(f"{key} goes with an ssh address, user@host:path or ssh://...; https takes a token")
    if "token" in value and not str(value["git"]).startswith("https://"):
        raise ValueError("token goes with an https address; ssh takes a key")
    if "username" in value and "token" not in value:
        raise ValueError("username goes with token")


def index(value: Any) -> None:
    """A package index: its address, and a login or none."""
    if ("username" in value) != ("password" in value):
        raise ValueError("username and password go together")
    if "password" in value and not str(value["url"]).startswith("https://"):
        raise ValueError("a password is sent over https only")


def private_key(value: Any) -> None:
    """An OpenSSH private key that nobody has to unlock. The message never holds the value."""
    lines = value.strip().splitlines() if isinstance(value, str) else []
    if len(lines) < 3 or not re.fullmatch(r"-----BEGIN [A-Z ]*PRIVATE KEY-----", lines[0]):
        raise ValueError("an OpenSSH private key is needed: all of its file, from -----BEGIN to -----END")
    if lines[-1] != lines[0].replace("BEGIN", "END"):
        raise ValueError("the private key has no end: all of its file is needed, line by line")
    try:
        content = base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        content = b""  # an older format, with headers
    # After this name comes that of the cipher, with its length before it.
    locked = content.startswith(b"openssh-key-v1\0") and not content.startswith(b"openssh-key-v1\0\0\0\0\4none")
    if locked or "ENCRYPTED" in lines[0] + lines[1]:
        raise ValueError("the private key has a passphrase, which nobody could type; take one away with: ssh-keygen -p")


def host_key(value: Any) -> None:
    """The keys of an ssh server, as known_hosts has them."""
    lines = [line for line in str(value).splitlines() if line.strip()]
    if not lines or not all(_KNOWN_HOST.fullmatch(line) for line in lines):
        raise ValueError("lines as in known_hosts are needed, such as ssh-keyscan prints: name, type and key")


def git_url(value: Any) -> None:
    """The address of a repository, without a login."""
    if _LOGIN.match(str(value)):
        raise Unshown("the address holds a login, and would be seen; take it out, and set token and username beside it")
    _git_url(value)
    _reachable(value)


def index_url(value: Any) -> None:
    """The address of a package index, without a login."""
    if _LOGIN.match(str(value)):
        raise Unshown("the address holds a login, and would be seen; set username and password beside it")
    _index_url(value)
    _reachable(value)


def _reachable(value: Any) -> None:
    """An address that somebody could connect to: its host is a domain or an address, its port is one."""
    try:
        parts = urlsplit(str(value))
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("after the colon of an address like this stands a port, a number from 1 to 65535")
    host = parts.hostname or "localhost"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        domain(host)


def network(value: Any) -> None:
    """An address or a network, of IPv4 or IPv6."""
    allowed = "an address such as 203.0.113.7 or a network such as 10.0.0.0/8 or 2001:db8::/32 is needed"
    # Python reads netmasks and zones, too, which nginx does not.
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/\d{1,3})?", str(value), re.ASCII):
        raise ValueError(allowed)
    try:
        ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(allowed) from None
    found = ipaddress.ip_interface(str(value))
    if found.ip != found.network.network_address:
        raise ValueError(f"the network of this address is {found.network}; write that, or the address alone")


def proxy(value: Any) -> None:
    """The address or network of a proxy whose word is taken for who the client is."""
    network(value)
    if ipaddress.ip_network(str(value)).prefixlen == 0:
        raise ValueError("this is everybody, so that every client could choose its address; name the proxies")


def certificate(value: Any) -> None:
    """Who issues a certificate: the user, with both files, or a CA, with what it needs to know."""
    own = {"fullchain", "privkey"} & set(value)
    if own and (len(own) < 2 or len(value) > 2):
        raise ValueError("your own certificate takes fullchain and privkey, both, and nothing else")
    if not own and value and "issuer" not in value:
        raise ValueError(f"{', '.join(sorted(value))}: only a CA needs this; set issuer, such as letsencrypt")


def issuer(value: Any) -> None:
    """A CA by its name or by the address of its ACME directory, or nobody."""
    if value not in (SELF_SIGNED, *DIRECTORIES):
        _directory(value)
        _reachable(value)


def email(value: Any) -> None:
    """An address of somebody, in ASCII."""
    _email(value)
    domain(str(value).rpartition("@")[2].lower())


def first_is_plain(value: Any) -> None:
    """At least one domain, the first of which is a real host name: it is the app's address."""
    if not value:
        raise ValueError("at least one domain is needed")
    if str(value[0]).startswith("*"):
        raise ValueError("the first domain is the app's address and cannot be a wildcard")


workers = _pattern(r"auto|[1-9]\d{0,2}", 'either "auto" or a number from 1 to 999')
python = _pattern(r"system|3\.\d{1,2}", 'either "system" or a version such as "3.13", in quotes')
entrypoint = _pattern(
    r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?",
    "an entry point is module:attribute, such as shop.main:app",
)
# As nginx normalises it: neither // nor . and .. as parts. Twice quoted, it has to fit into a word of nginx.
_PART = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+"
_PATH = rf"(?=.{{1,1000}}\Z)/(?:{_PART}/)*(?:{_PART})?"
url_path = _pattern(
    _PATH, "a path begins with /, holds letters, digits and . _ ~ - /, at most 1000, and no part is empty, . or .."
)
_prefix = _pattern(rf"(?!/\Z){_PATH}(?<=/)", "a prefix begins and ends with /, such as /static/")
inner_path = _pattern(
    r"(?=.{1,255}\Z)[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*",
    "a directory inside the source is needed, such as static or shop/static; none begins with .",
)


def site_path(value: Any) -> None:
    """A path of the site that is not one of Slipway's own."""
    url_path(value)
    if f"{value}/".startswith(tuple(f"{path}/" for path in _OWN_PATHS)):
        raise ValueError(f"{' and '.join(_OWN_PATHS)} are answered by Slipway itself; choose another")


def prefix(value: Any) -> None:
    """A prefix of the site's paths, which ends with a slash."""
    _prefix(value)
    site_path(str(value).rstrip("/"))


_directory = _pattern(
    rf"https://[A-Za-z0-9.-]+(:\d{{1,5}})?({_PATH})?",
    f"an issuer is {', '.join((SELF_SIGNED, *DIRECTORIES))} or the address of an ACME directory, https://...",
)
_email = _pattern(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", "an address such as ops@example.com"
)
profile = _pattern(r"[A-Za-z0-9._-]{1,64}", "a profile of the CA is letters, digits and . _ -, such as shortlived")
credential_name = _pattern(r"[a-z0-9_]{1,64}", "a name is lower-case letters, digits and _, as the plugin has it")
key_name = _pattern(r"[!-~]{1,200}", "a key's name is letters, digits and signs, without blanks")
_redirect = _pattern(
    rf"(https://[a-z0-9.-]+(:\d{{1,5}})?)?{_PATH}",
    "a redirect leads to a path such as /new, or to an address such as https://www.example.com/new",
)


def redirects(value: Any) -> None:
    """Redirects by the path that they are for, none of which leads to itself."""
    for start, target in value.items():
        if start != "/" and str(start).endswith("/") and not str(target).endswith("/"):
            raise ValueError(f"{start} takes everything beneath it along, so that {target} has to end with / as well")
        beneath = start != "/" and str(start).endswith("/") and str(target).startswith(str(start))
        if target == start or beneath:
            raise ValueError(f"{target} is redirected again, without end")


def redirect(value: Any) -> None:
    """Where a redirect leads."""
    if str(value).startswith("//"):
        raise ValueError("two slashes at the beginning would lead to another host; write https://")
    _redirect(value)
    _reachable(value)


size = _pattern(r"[1-9]\d{0,5}[kmg]?", "a size is a number with k, m or g, such as 10m")
rate = _pattern(
    r"[1-9]\d{0,5}r/[sm]( burst=[1-9]\d{0,4})?",
    "a rate is a number with r/s or r/m, and a burst or none, such as 5r/m burst=10",
)
# What nginx takes.
count = _whole(0, 65535, "; 0 is no limit")
requests = _whole(0, 1_000_000_000, "; 0 is never")
# Seconds: an hour for a start, a day for a drain. systemd waits for some of them twice.
seconds = _whole(1, 3600)
drain_seconds = _whole(0, 86400)
propagation_seconds = _whole(0, 3600)
releases = _whole(1, 1000)
port = _whole(1, 65535)
# nginx needs some for itself; twice as many open files are the most that systemd gives to a service (524288).
connections = _whole(64, 262144)
journal_size = _pattern(r"[1-9]\d{0,5}[KMGT]", "a size is a number with K, M, G or T, such as 500M")
memory = _pattern(r"[1-9]\d{0,5}[MG]", "a size of memory is a number with M or G, such as 512M")
cpu_weight = _whole(1, 10_000, "; everything else has 100")
tasks = _whole(10, 9_999_999)
ca_file = _pattern(r"[^\0-\x1f]*[^\0-\x1f/]\.crt", "a file whose name ends with .crt is needed")
system_user = _pattern(r"[a-z_][a-z0-9_-]{0,30}", "a user's name is lower-case letters, digits, _ and -")
key_group = _pattern(r"|[a-z_][a-z0-9_-]{0,30}", "a group's name is lower-case letters, digits, _ and -")
time_of_day = _pattern(r"|([01]\d|2[0-3]):[0-5]\d", 'a time of day is four digits in quotes, such as "04:00"')
firewall_rule = _pattern(
    r"[^\0\r\n]*[^\0\r\n\\]", "a rule is one line of nftables' language, such as tcp dport 5432 accept"
)
directory = _pattern(
    r"(/[A-Za-z0-9_+@-][A-Za-z0-9._+@-]*)+",
    "an absolute path is needed, of letters, digits and . _ + @ -, such as /srv/media",
)
secret_name = _pattern(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "a secret's name is letters, digits and underscores")


def secret_line(value: Any) -> None:
    """A secret of one line. The message never holds the value."""
    if not isinstance(value, str) or not value.isprintable() or not value or value != value.strip():
        raise ValueError("a single line is needed, without blanks around it and control characters")


def credential_value(value: Any) -> None:
    """What certbot reads from an ini file, which knows no escapes. The message never holds the value."""
    secret_line(value)
    if re.search(r"%\([^)]*\)s", value):
        raise ValueError("certbot would read %(...)s as a reference to something else")
    if all(quote in value or value.endswith(quote[0]) for quote in ('"', "'", "'''", '"""')):
        raise ValueError("with so many quotes of both kinds it cannot be written for certbot")


username = _pattern(r"[!-9;-~]{1,200}", "a user name is letters, digits and signs, without blanks and colons")
extra = _pattern(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", "a name is letters, digits and . _ -, such as postgres"
)
package = _pattern(
    r"[a-z0-9][a-z0-9+.-]{1,127}", "a Debian package is lower-case letters, digits and + . -, such as libpq-dev"
)
# An ssh address may well have a user, but not a password.
_LOGIN = re.compile(r"https?://[^/]*@|ssh://[^/@]*:[^/]*@", re.IGNORECASE)
_KNOWN_HOST = re.compile(
    r"\s*(@(cert-authority|revoked)\s+)?[^\s@#]\S*\s+(sk-)?(ssh|ecdsa)-\S+\s+[A-Za-z0-9+/]{16,}=*(\s.*)?"
)
_HOST = r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
# Printable ASCII without blanks, quotes, backslash and $, and for an index without ? and #.
_index_url = _pattern(rf"https?://{_HOST}(:\d+)?(/[!%&(->@-\[\]-_a-~]*)?", "an index is https://..., without a query")
_git_url = _pattern(
    rf"(https?://{_HOST}|ssh://([A-Za-z0-9_][A-Za-z0-9_.-]*@)?{_HOST}|file:///|[A-Za-z0-9_][A-Za-z0-9_.-]*@{_HOST}:)"
    r"[!#%&(-\[\]-_a-~]+",
    "a git address is https://..., ssh://... or user@host:path",
)
_mirror_url = _pattern(
    rf"|(https?://{_HOST}(:\d+)?|file://)(/[!%&(->@-\[\]-_a-~]*)?", "a mirror is https://... or file:///..."
)
_batch = _pattern(r"[1-9]\d{0,4}|([1-9]\d?|100)%", 'a number of hosts from 1, or a share of them such as "30%"')
git_version = _pattern(
    r"(?!-)[A-Za-z0-9._/-]{1,200}", "a version is a tag, a branch or a commit: letters, digits and . _ / -"
)


def mirror_url(value: Any) -> None:
    """Where else Python is downloaded from, or "" for its usual address."""
    _mirror_url(value)
    _reachable(value)


def batches(value: Any) -> None:
    """How many hosts are taken at a time; of several, each is for one batch."""
    for batch in value if isinstance(value, (list, tuple)) else [value]:
        _batch(batch)


def ca_files(value: Any) -> None:
    """Files that come to lie in one directory of the host, by their names."""
    names = [str(path).rpartition("/")[2] for path in value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"on the host they lie in one directory, and more than one is called {', '.join(twice)}")


# Which kind stands where. [] is each element of a list, {} each value and {key} each key of a mapping.
KINDS: dict[str, Kind] = {
    "domains": first_is_plain,
    "domains[]": domain,
    "source": source,
    "source.git": git_url,
    "source.version": git_version,
    "source.key": private_key,
    "source.token": secret_line,
    "source.username": username,
    "source.host_key": host_key,
    "extras[]": extra,
    "groups[]": extra,
    "packages[]": package,
    "index": index,
    "index.url": index_url,
    "index.username": username,
    "index.password": secret_line,
    "build": line,
    "migrate": line,
    "after_switch": line,
    "after_rollback": line,
    "entrypoint": entrypoint,
    "python": python,
    "workers": workers,
    "threads": workers,
    "request_seconds": seconds,
    "max_requests": requests,
    "ready_path": url_path,
    "ready_seconds": seconds,
    "drain_seconds": drain_seconds,
    "keep_releases": releases,
    "websocket_paths[]": site_path,
    "static{key}": prefix,
    "static{}": inner_path,
    "environment": environment,
    "environment{key}": environment_name,
    "environment{}": line,
    "secrets{key}": secret_name,
    "secret_environment{key}": secret_environment_name,
    "secret_environment{}": environment_secret,
    "sandbox.writable[]": writable,
    "resources.memory": memory,
    "resources.cpu_weight": cpu_weight,
    "resources.tasks": tasks,
    "headers": headers,
    "headers{key}": header,
    "headers{}": header_value,
    "max_body_size": size,
    "nginx.http": directives,
    "nginx.server": directives,
    "nginx.location": directives,
    "redirects": redirects,
    "redirects{key}": site_path,
    "redirects{}": redirect,
    "private_paths[]": site_path,
    "private_allow[]": network,
    "limits.requests": rate,
    "limits.connections": count,
    "limits.paths{key}": site_path,
    "limits.paths{}": rate,
    "trusted_proxies[]": proxy,
    "maintenance_allow[]": network,
    "certificate": certificate,
    "certificate.issuer": issuer,
    "certificate.email": email,
    "certificate.profile": profile,
    "certificate.dns.credentials{key}": credential_name,
    "certificate.dns.credentials{}": credential_value,
    "certificate.dns.propagation_seconds": propagation_seconds,
    "certificate.eab.kid": key_name,
    "certificate.eab.hmac_key": secret_line,
}
# The same for the variables beside the apps.
VARIABLES: dict[str, Kind] = {
    "slipway_prometheus[]": network,
    "slipway_public_port": port,
    "slipway_serial": batches,
    "host_reboot_at": time_of_day,
    "host_journal_max": journal_size,
    "host_ca_files": ca_files,
    "host_ca_files[]": ca_file,
    "firewall_ssh_port": port,
    "firewall_rules[]": firewall_rule,
    "python_mirror": mirror_url,
    "certificates_key_group": key_group,
    "nginx_journal_max": journal_size,
    "nginx_key_group": key_group,
    "nginx_writable[]": directory,
    "nginx_worker_connections": connections,
    "app_front_user": system_user,
}
