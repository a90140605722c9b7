"""What a value may be, beyond its type: one small function for each kind, used by resolve_apps.

Each takes a value and returns nothing, or raises ``ValueError`` with what is allowed, to be read after
"slipway_apps.shop.domains[0] is ...: ".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Kind = Callable[[Any], None]

# RFC 1035: a label has at most 63 characters, a name at most 253.
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_RESERVED_ENVIRONMENT = re.compile(
    r"SLIPWAY_.*|CREDENTIALS_DIRECTORY|STATE_DIRECTORY|RUNTIME_DIRECTORY|NOTIFY_SOCKET|LISTEN_.*|HOME|PATH|USER"
)
# Fewer than RFC 9110 allows: the name becomes part of a variable of nginx.
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
# Paths of every site that Slipway answers itself.
_OWN_PATHS = ("/.slipway", "/.well-known/acme-challenge")


def _pattern(expression: str, allowed: str) -> Kind:
    matcher = re.compile(expression, re.ASCII)

    def check(value: Any) -> None:
        if not matcher.fullmatch(str(value)):
            raise ValueError(allowed)

    return check


def app_name(value: Any) -> None:
    """An app's name, which becomes part of user, unit and socket names (31 characters at most for a user)."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,22}", value):
        raise ValueError("a name is 1 to 23 lower-case letters, digits and dashes, and begins with a letter")
    # slipway-build is a user, slipway-wake a unit, slipway-shop-check a unit of the app shop.
    if re.fullmatch(r"build|wake|certificates|.*-(build|check|migrate)", value):
        raise ValueError("this name is taken by Slipway itself; choose another")


def domain(value: Any) -> None:
    """A host name in ASCII, such as shop.example.com; the leftmost label may be ``*``."""
    text = str(value)
    if "://" in text:
        raise ValueError(f"a domain has no scheme; write {text.split('://', 1)[1].split('/')[0] or 'shop.example.com'}")
    try:
        text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("a domain is written in its ASCII form, such as xn--bcher-kva.example") from None
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.removeprefix("*.").split(".")):
        raise ValueError(
            "a domain is lower-case labels of letters, digits and dashes joined by dots, without port, path or "
            "trailing dot, such as shop.example.com"
        )


def environment_name(value: Any) -> None:
    """A name that a process's environment can hold and that Slipway does not set itself."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("an environment name is letters, digits and underscores, and does not begin with a digit")
    if _RESERVED_ENVIRONMENT.fullmatch(value):
        raise ValueError("this name is set by Slipway or systemd; choose another")


def line(value: Any) -> None:
    """One line of text: no line break and no NUL byte."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"YAML reads this as {'nothing' if value is None else 'a boolean'}; put it in quotes")
    if isinstance(value, float):
        raise ValueError("YAML reads this as a number and may change its digits; put it in quotes")
    if not isinstance(value, (str, int)):
        raise ValueError("a single text or whole number is needed")
    if any(character in str(value) for character in "\n\r\0"):
        raise ValueError("it must be a single line, without line breaks and NUL bytes")


def header_value(value: Any) -> None:
    """What a header says: one line without control characters."""
    line(value)
    if not str(value).isprintable():
        raise ValueError("it must be without control characters")


def headers(value: Any) -> None:
    """Headers by name, each once, whatever the case."""
    lower = [str(name).lower() for name in value]
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if twice:
        raise ValueError(f"each header may stand once, whatever its case; twice are: {', '.join(twice)}")


def secret_value(value: Any) -> None:
    """What a secret holds: some text. The message never holds the value."""
    if not isinstance(value, str) or not value:
        raise ValueError("a secret is a text that is not empty")
    if "\0" in value:
        raise ValueError("a secret holds no NUL byte")


def header(value: Any) -> None:
    """The name of an HTTP header."""
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ValueError("a header's name is letters, digits and dashes")


def inner_path(value: Any) -> None:
    """A relative path that stays inside the source."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", text):
        raise ValueError("a directory inside the source is needed, such as static or shop/static; none begins with .")


def source(value: Any) -> None:
    """Where an app comes from: one of path and git."""
    if ("path" in value) == ("git" in value):
        raise ValueError("exactly one of path and git is needed")
    if "version" in value and "path" in value:
        raise ValueError("version goes with git; a path is taken as it is")


def certificate(value: Any) -> None:
    """The user's own certificate: both files."""
    if set(value) != {"fullchain", "privkey"}:
        raise ValueError("both fullchain and privkey are needed")


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
url_path = _pattern(r"/[A-Za-z0-9._~/-]*", "a path begins with / and holds letters, digits and . _ ~ - /")
_prefix = _pattern(r"/([A-Za-z0-9._~-]+/)+", "a prefix begins and ends with /, such as /static/")


def site_path(value: Any) -> None:
    """A path of the site that is not one of Slipway's own."""
    url_path(value)
    if f"{value}/".startswith(tuple(f"{path}/" for path in _OWN_PATHS)):
        raise ValueError(f"{' and '.join(_OWN_PATHS)} are answered by Slipway itself; choose another")


def prefix(value: Any) -> None:
    """A prefix of the site's paths, which ends with a slash."""
    _prefix(value)
    site_path(str(value).rstrip("/"))


size = _pattern(r"[1-9]\d{0,5}[kmg]?", "a size is a number with k, m or g, such as 10m")
secret_name = _pattern(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "a secret's name is letters, digits and underscores")
git_url = _pattern(
    r"(https?://|ssh://|file:///|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:)[^\s'\"\\$`]+",
    "a git address is https://..., ssh://... or user@host:path",
)
git_version = _pattern(
    r"(?!-)[A-Za-z0-9._/-]{1,200}", "a version is a tag, a branch or a commit: letters, digits and . _ / -"
)

# Which kind stands where. [] is each element of a list, {} each value and {key} each key of a mapping.
KINDS: dict[str, Kind] = {
    "domains": first_is_plain,
    "domains[]": domain,
    "source": source,
    "source.git": git_url,
    "source.version": git_version,
    "build": line,
    "migrate": line,
    "after_switch": line,
    "after_rollback": line,
    "entrypoint": entrypoint,
    "python": python,
    "workers": workers,
    "ready_path": url_path,
    "websocket_paths[]": site_path,
    "static{key}": prefix,
    "static{}": inner_path,
    "environment{key}": environment_name,
    "environment{}": line,
    "secrets{key}": secret_name,
    "headers": headers,
    "headers{key}": header,
    "headers{}": header_value,
    "max_body_size": size,
    "certificate": certificate,
}
