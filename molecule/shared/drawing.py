"""Variables as users may write them: drawn by Hypothesis, good ones and hostile ones, and a few classes by hand."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import ipaddress
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hosts import ROOT
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from rendering import ROLES

from ansible_collections.slipway.asgi.plugins.plugin_utils.apps import Options, lacks, load_specs
from ansible_collections.slipway.asgi.plugins.plugin_utils.kinds import KINDS

set_hypothesis_home_dir(str(ROOT / ".cache/hypothesis"))

Strategy = st.SearchStrategy[Any]
SPECS = load_specs(ROLES)
OPTIONS: Options = {name: option for spec in SPECS.values() for name, option in spec.items() if name != "name"}
# The directory beside the file of variables, with a lock.
SOURCE = "source"
# The app of the sets that are written by hand.
WRITTEN = "written"
# What becomes variables of an app's environment.
ENVIRONMENTS = [name for name in ("environment", "secret_environment") if name in OPTIONS]
LOWER = string.ascii_lowercase
DIGITS = string.digits
PEM = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"
KNOWN_HOST = "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabcdefgh"

# Texts that break out of something, or that something reads otherwise than they are written.
NASTY = [
    *(
        "%",
        "%%",
        "%n",
        "%i",
        "$",
        "$$",
        "$HOME",
        "${HOME}",
        "${",
        "$(id)",
        "`id`",
        "\\",
        "\\n",
        "\\\\",
        "\\x41",
        '"',
        "'",
    ),
    *("'''", '"""', ";", "; }", "}", "{", "#", " #", "=", ",", ":", ": ", "&", "|", ">", "~", "!", "@", "*", "-", "- "),
    *("{{ 1 }}", "{% raw %}", "{#", "%(a)s", "no", "1e3", "0123", "12:30", "null", " ", "  ", "\t", "\u00a0", "é", "ß"),
    *("\u0301", "\u200d", "\u2028", "\x85", "\x7f", "\x1b[0m", "\x01", "\ufeff", "\ufffd", "😀", "中", "א", "x" * 3000),
]
# What no environment can hold.
IMPOSSIBLE = ["\n", "\r", "\0", "\ufffe", "\ufdd0", "\U0010ffff", "x" * 100_001]
_NO_CHARACTERS = [*map(chr, range(0xFDD0, 0xFDF0))] + [
    chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)
]
# What YAML makes of things that were to be texts, and other things that are none.
NO_TEXTS = [None, True, False, 1.5, 1e300, -1, 0, 10**12, datetime.date(2026, 1, 31)]
NO_VALUES = [*NO_TEXTS, [], {}, ["a"], {"a": "b"}]
# What is nearly right somewhere.
NEAR = [
    *(
        "bücher.example",
        "☕.example",
        "xn--zz.example",
        "ab--cd.example",
        "shop.example.com.",
        "*",
        "*.*.a",
        "a..b",
        ".a",
    ),
    *(
        "-a.example",
        "a_b.example",
        "A.example",
        "a.1",
        "203.0.113.7",
        "localhost",
        "default",
        "https://a.example",
        "a:443",
    ),
    *(
        "https://x:0/a",
        "https://x:65536/a",
        "https://u:p@x/a",
        "https://x/$a",
        "https://x/a?b",
        "http://[::1/",
        "git@-x:a",
    ),
    *(
        "/",
        "//",
        "/a//b",
        "/../a",
        "/a/.",
        "/a b",
        "/$uri",
        "/a;b",
        "/.slipway/x",
        "/.well-known/acme-challenge/",
        "a/../b",
    ),
    *(
        f"/{'a' * 1001}",
        f"{'a' * 64}.example",
        f"{'a.' * 127}a",
        "x" * 256,
        "1",
        "-1",
        "0x10",
        "65536",
        "1e3",
        "1k",
        "0m",
    ),
    *(
        "PATH",
        "SLIPWAY_X",
        "MAINPID",
        "1A",
        "A-B",
        "A=B",
        "Content-Length",
        "X_A",
        "build",
        "acme",
        "x-check",
        "../x",
        ".git",
    ),
    *("5r/h", "0r/s", "5r/s burst=0", "10.0.0.1/8", "0.0.0.0/0", "fe80::1%eth0", "system", "3.9", "main", "main:app;x"),
]


def joined(*parts: Strategy, most: int = 6) -> Strategy:
    """Texts of several of these parts."""
    return st.lists(st.one_of(*parts), max_size=most).map("".join)


def word(first: str, rest: str, most: int) -> Strategy:
    """A first character, and more of others."""
    return st.builds("{}{}".format, st.sampled_from(first), st.text(rest, max_size=most - 1))


any_text = joined(
    st.sampled_from(NASTY),
    st.text(st.characters(codec="utf-8", exclude_characters=["\n", "\r", "\0", *_NO_CHARACTERS])),
)
hostile_text = joined(st.sampled_from(NASTY), st.sampled_from(IMPOSSIBLE), st.text(st.characters(codec="utf-8")))
hostile_name = st.one_of(
    hostile_text, st.sampled_from(NO_TEXTS), st.sampled_from(NEAR), st.sampled_from(NASTY), st.sampled_from(IMPOSSIBLE)
)
hostile = st.one_of(hostile_name, any_text, st.sampled_from(NO_VALUES))

label = st.one_of(
    word(LOWER, LOWER + DIGITS, 12),
    word(LOWER, LOWER, 63),
    st.sampled_from(["xn--bcher-kva", "xn--mgba3gch31f060k", "xn--r8jz45g", "a--b", "1a", "x", "default", "include"]),
)
# None that ends like one of Slipway's own.
names = word(LOWER, LOWER + DIGITS + "-", 22).map(lambda name: f"{name}x")
domain = st.lists(label, min_size=1, max_size=4).map(".".join).filter(lambda text: len(text) <= 251)
address = st.sampled_from(["https://{}", "https://{}:8443", "https://{}:65535"])
part = word(string.ascii_letters, string.ascii_letters + DIGITS + "._-", 20)


def path(first: str) -> Strategy:
    """A path that begins with a letter of its own, so that no two options have the same."""
    return st.builds(lambda parts: "/" + first + "/".join(parts), st.lists(part, min_size=1, max_size=3))


def printable(text: str) -> str:
    """A text without what no header can hold, short enough for one."""
    return "".join(character for character in text if character.isprintable())[:200]


environment_name = word(string.ascii_uppercase, string.ascii_letters + DIGITS + "_", 20).map(lambda name: f"A{name}")
rate = st.builds(
    "{}r/{}{}".format, st.integers(1, 999_999), st.sampled_from("sm"), st.sampled_from(["", " burst=99999"])
)
network = st.one_of(
    st.ip_addresses().map(str).filter(lambda text: "%" not in text),
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32", "::1/128", "203.0.113.7/32"]),
)
networks = st.lists(network, max_size=3, unique_by=ipaddress.ip_network)
proxy = network.filter(lambda text: not text.endswith("/0"))
secret_line = any_text.map(lambda text: printable(text).strip() or "x")
ini_value = secret_line.map(lambda text: text.replace("'", "").replace("%(", "").strip() or "x")
redirect_pairs = st.dictionaries(
    st.one_of(path("r"), path("r").map(lambda text: f"{text}/")),
    st.one_of(path("t"), st.builds(lambda url, name: url.format(name) + "/t", address, domain)).map(
        lambda text: f"{text}/"
    ),
    max_size=3,
)
DIRECTIVES = {
    "http": ["map $http_accept_language $own_words {\n\tdefault en;\n\t~^de de;\n}\n", "# nothing but a word: }\n"],
    "server": ["location = /robots.txt { return 404; }", 'add_trailer X-Own "a; } $host";'],
    "location": ["proxy_read_timeout 5m;", "proxy_read_timeout 5m;\nproxy_set_header X-Own '\"{';\n"],
}
whole = st.integers

# What is good at each place of KINDS; of one that holds others, a whole that is good.
GOOD: dict[str, Strategy] = {
    "domains": st.builds(
        lambda plain, wildcards: [*plain, *(f"*.{name}" for name in wildcards)],
        st.lists(domain, min_size=1, max_size=3, unique=True),
        st.lists(domain, max_size=1),
    ),
    "domains[]": domain,
    "source": st.one_of(
        st.just({"path": SOURCE}),
        st.just({"git": "git@git.example.com:shop.git", "key": PEM, "host_key": KNOWN_HOST}),
        st.fixed_dictionaries(
            {"git": st.just("https://git.example.com/shop.git"), "token": secret_line},
            optional={"version": st.sampled_from(["v1.4.2", "main", 20260131]), "username": st.just("oauth2")},
        ),
    ),
    "source.git": st.sampled_from(["ssh://git@x:22/a.git", "https://x/a%20b.git", "file:///srv/a.git", "git@x:a"]),
    "source.version": word(string.ascii_letters + DIGITS, string.ascii_letters + DIGITS + "._/-", 40),
    "source.key": st.just(PEM),
    "source.token": secret_line,
    "source.username": st.sampled_from(["x-access-token", "oauth2", "$u%"]),
    "source.host_key": st.just(KNOWN_HOST),
    "extras[]": word(LOWER, LOWER + DIGITS, 9),
    "groups[]": word(LOWER, LOWER + DIGITS, 9),
    "packages[]": st.sampled_from(["libpq-dev", "g++", "ffmpeg", "python3.13-dev"]),
    "index": st.fixed_dictionaries(
        {"url": st.builds(lambda url, name: url.format(name) + "/simple", address, domain)},
    ).flatmap(lambda index: st.sampled_from([index, {**index, "username": "deploy", "password": "p %(a)s '\"\\$"}])),
    "index.url": st.sampled_from(["https://[2001:db8::1]:8443/simple/", "http://10.0.0.1:3141/root/+simple/"]),
    "index.username": st.sampled_from(["deploy", '"$%\\']),
    "index.password": secret_line,
    **dict.fromkeys(("build", "migrate", "after_switch", "after_rollback"), any_text),
    "entrypoint": st.sampled_from(["main:app", "shop_2.main:create()", "shop:api.app"]),
    "python": st.sampled_from(["system", "3.12", "3.13"]),
    "workers": st.one_of(st.just("auto"), whole(1, 999), whole(1, 999).map(str)),
    "threads": st.one_of(st.just("auto"), whole(1, 999), whole(1, 999).map(str)),
    "max_requests": whole(0, 10**9),
    "ready_path": st.one_of(st.just("/"), path("e")),
    "ready_seconds": st.one_of(whole(1, 3600), whole(1, 3600).map(str)),
    "drain_seconds": whole(0, 86400),
    "request_seconds": whole(1, 3600),
    "keep_releases": whole(1, 1000),
    "websocket_paths[]": path("w"),
    "static{key}": path("s").map(lambda text: f"{text}/"),
    "static{}": st.lists(part, min_size=1, max_size=3).map("/".join),
    "environment": st.dictionaries(environment_name, st.one_of(any_text, whole(-(10**9), 10**9)), max_size=6),
    "environment{key}": environment_name,
    "environment{}": any_text,
    # None that is in both.
    "secret_environment{key}": environment_name.map(lambda name: f"SECRET_{name}"),
    "secret_environment{}": any_text.map(lambda text: text or "x"),
    "secrets{key}": word(LOWER + "_", string.ascii_letters + DIGITS + "_", 64),
    "secrets{}": joined(any_text, st.sampled_from(["\n", "\r\n", "\ufffe"])).map(lambda text: text or "x"),
    # They have to be there, and these are.
    "sandbox.writable[]": st.sampled_from(["/media", "/mnt", "/var/local"]),
    "resources.memory": st.builds("{}{}".format, whole(1, 999_999), st.sampled_from("MG")),
    "resources.cpu_weight": whole(1, 10_000),
    "resources.tasks": whole(10, 9_999_999),
    "headers": st.dictionaries(
        word("X", string.ascii_letters + DIGITS + "-", 40), st.one_of(any_text.map(printable), whole()), max_size=3
    ).filter(lambda headers: len({name.lower() for name in headers}) == len(headers)),
    "headers{key}": word("XYZ", string.ascii_letters + DIGITS + "-", 64),
    "headers{}": any_text.map(printable),
    "max_body_size": st.builds("{}{}".format, whole(1, 999_999), st.sampled_from(["", "k", "m", "g"])),
    **{f"nginx.{point}": st.sampled_from(good) for point, good in DIRECTIVES.items()},
    "redirects": redirect_pairs,
    "redirects{key}": path("r"),
    "redirects{}": path("t"),
    "private_paths[]": st.one_of(st.just("/"), path("p")),
    "private_allow": networks,
    "private_allow[]": network,
    "limits.requests": rate,
    "limits.connections": whole(0, 65535),
    "limits.paths{key}": path("l"),
    "limits.paths{}": rate,
    "trusted_proxies": st.lists(proxy, max_size=3, unique_by=ipaddress.ip_network),
    "trusted_proxies[]": proxy,
    "maintenance_allow": networks,
    "maintenance_allow[]": network,
    "certificate": st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {"issuer": st.sampled_from(["letsencrypt", "https://ca.example.com:9000/acme/directory"])},
            optional={
                "email": st.sampled_from(["ops@example.com", "o'neill+%$tls@mail.example.co.uk"]),
                "profile": st.just("shortlived"),
                "eab": st.fixed_dictionaries({"kid": st.just('k"%$'), "hmac_key": secret_line}),
                "dns": st.fixed_dictionaries(
                    {
                        "plugin": st.just("cloudflare"),
                        "credentials": st.dictionaries(word(LOWER, LOWER + "_", 9), ini_value, min_size=1, max_size=2),
                    }
                ),
            },
        ),
    ),
    "certificate.issuer": st.sampled_from(["self-signed", "letsencrypt-staging"]),
    "certificate.email": st.just("ops@example.com"),
    "certificate.profile": st.just("tlsserver"),
    "certificate.dns.credentials{key}": word(LOWER, LOWER + "_", 9),
    "certificate.dns.credentials{}": ini_value,
    "certificate.dns.propagation_seconds": whole(0, 3600),
    "certificate.eab.kid": st.just("kid-1"),
    "certificate.eab.hmac_key": secret_line,
}
# Beside the apps.
VARIABLES: dict[str, Strategy] = {
    "slipway_prometheus": st.lists(st.sampled_from(["203.0.113.50", "10.0.0.0/8", "2001:db8::/32"])),
    "slipway_prometheus[]": st.just("203.0.113.50"),
    "slipway_public_port": whole(1, 65535),
    "slipway_serial": st.sampled_from([1, "30%", [1, "50%"]]),
    "host_reboot_at": st.sampled_from(["", "04:00", "23:59"]),
    "host_journal_max": st.builds("{}{}".format, whole(1, 999_999), st.sampled_from("KMGT")),
    "host_ca_files": st.lists(st.sampled_from(["/a/a.crt", "/b/b b.crt"]), unique=True),
    "host_ca_files[]": st.just("/a/a.crt"),
    "python_mirror": st.sampled_from(["", "https://mirror.example.com:8443/python", "file:///srv/python"]),
    "firewall_ssh_port": whole(1, 65535),
    "firewall_rules[]": st.just('iifname "docker0" accept # ours'),
    "certificates_key_group": st.sampled_from(["slipway-keys", "ssl-cert"]),
    "nginx_journal_max": st.builds("{}{}".format, whole(1, 999_999), st.sampled_from("KMGT")),
    "nginx_key_group": st.sampled_from(["slipway-keys", "ssl-cert"]),
    "nginx_writable[]": st.sampled_from(["/media", "/mnt", "/var/local"]),
    "nginx_worker_connections": whole(64, 262144),
    "app_front_user": st.just("www-data"),
}


def strategy_of(option: Mapping[str, Any], place: str) -> Strategy:
    """Good values for an option."""
    if place in GOOD:
        return GOOD[place]
    if "choices" in option:
        return st.sampled_from(option["choices"])
    if option["type"] == "bool":
        return st.booleans()
    if option["type"] == "list":
        return st.lists(GOOD[f"{place}[]"], max_size=3, unique=True)
    if "options" in option:
        return mapping_of(option["options"], f"{place}.")
    return st.dictionaries(GOOD[f"{place}{{key}}"], GOOD[f"{place}{{}}"], max_size=3)


def mapping_of(options: Options, place: str = "") -> Strategy:
    """Good mappings of options: those that are needed, and some of the others."""
    found = {name: strategy_of(option, f"{place}{name}") for name, option in options.items()}
    needed = {name for name in found if options[name].get("required")}
    return st.fixed_dictionaries(
        {name: found[name] for name in sorted(needed)},
        optional={name: found[name] for name in sorted(set(found) - needed)},
    )


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A set of variables, and what of it may be wrong.

    Attributes:
        variables: the variables, as a YAML file holds them.
        hostile: the places at which something was put that may be wrong; where there are none, all of it is good.
    """

    variables: dict[str, Any]
    hostile: list[str]

    def are_named(self, messages: list[str]) -> bool:
        """Whether each message names something that may be wrong."""
        names = [bare(place).split(".")[0] for place in self.hostile]
        names += ["slipway_apps has the app"] if "name" in self.hostile else []
        return bool(messages) and all(any(name in message for name in names) for message in messages)

    @property
    def values(self) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """By each app's name, what it has to find in its environment and among its secrets."""
        return {
            name: (
                {key: str(value) for option in ENVIRONMENTS for key, value in app.get(option, {}).items()},
                dict(app.get("secrets", {})),
            )
            for name, app in self.variables["slipway_apps"].items()
        }

    @property
    def has_directives(self) -> bool:
        """Whether it has directives for nginx that may be wrong."""
        return any(place.startswith("nginx") for place in self.hostile)

    @property
    def text(self) -> str:
        """The same as YAML, in which what looks like a template is said to be none."""
        return str(yaml.dump(_literal(self.variables), Dumper=_Dumper, allow_unicode=True, sort_keys=False))


@st.composite
def sets(draw: st.DrawFn) -> Drawn:
    """Sets of variables: all good, or good but for one place or a few."""
    apps: dict[Any, Any] = {}
    taken: set[str] = set()
    for name in draw(st.lists(names, min_size=1, max_size=2, unique=True)):
        # Of its own, to be changed below.
        apps[name] = copy.deepcopy(draw(mapping_of(OPTIONS)))
        for option in lacks(apps[name].get("server", "gunicorn")):
            apps[name].pop(option, None)
        domains = [domain for domain in apps[name]["domains"] if domain not in taken]
        certificate = apps[name].get("certificate", {})
        if "issuer" in certificate and "dns" not in certificate:
            domains = [domain for domain in domains if not domain.startswith("*")]
        if not domains or domains[0].startswith("*"):
            domains.insert(0, f"app{len(apps)}.slipway.example")
        apps[name]["domains"] = domains
        taken.update(domains)
    variables: dict[str, Any] = {"slipway_apps": apps}
    beside = [place for place in VARIABLES if "[]" not in place]
    for place in draw(st.lists(st.sampled_from(beside), max_size=2, unique=True)):
        variables[place] = draw(VARIABLES[place])
    places = draw(st.lists(st.sampled_from(PLACES), max_size=2, unique=True))
    for place in places:
        if place == "name":
            apps[draw(hostile_name)] = apps.pop(draw(st.sampled_from(list(apps))))
        else:
            holder = variables if bare(place) in VARIABLES else apps[draw(st.sampled_from(list(apps)))]
            _put(draw, holder, place)
    return Drawn(variables, places)


def lay_source(directory: Path) -> None:
    """Make the source that drawn apps have, beside their file of variables."""
    (directory / SOURCE).mkdir()
    (directory / SOURCE / "uv.lock").touch()


def bare(place: str) -> str:
    """The option that a place of KINDS belongs to."""
    return place.removesuffix("[]").removesuffix("{key}").removesuffix("{}")


def _put(draw: st.DrawFn, holder: Any, place: str) -> None:
    """Put something hostile at a place, into whatever is there by now."""
    *steps, last = bare(place).split(".")
    for step in steps:
        if not isinstance(holder.get(step), dict):
            holder[step] = {}
        holder = holder[step]
    if place.endswith("[]"):
        found = holder.get(last)
        holder[last] = [*(found if isinstance(found, list) else []), draw(hostile)]
    elif place.endswith("}"):
        found = holder.get(last)
        kept = found if isinstance(found, dict) else {}
        good = {
            "{key}": GOOD.get(f"{bare(place)}{{}}", any_text),
            "{}": GOOD.get(f"{bare(place)}{{key}}", environment_name),
        }
        if place.endswith("{key}"):
            holder[last] = {**kept, draw(hostile_name): draw(good["{key}"])}
        else:
            holder[last] = {**kept, draw(good["{}"]): draw(hostile)}
    else:
        holder[last] = draw(hostile)


# Texts that may hold nearly anything.
FREE = ["build", "migrate", "secrets{}", "headers{}", "source.token", "index.password"]
FREE += [f"{name}{{}}" for name in ENVIRONMENTS]
# Where something hostile may stand: in place of a name, of an option, and at each place that is checked; at those whose
# texts are free more often, since only they have a good chance to be taken.
PLACES = ["name", *OPTIONS, *(place for place in KINDS if place not in OPTIONS), *VARIABLES, *FREE * 6]


class _Literal(str):
    """A text that is no template, whatever it looks like."""


class _Dumper(yaml.SafeDumper):
    """Writes what stands twice twice."""

    ignore_aliases = staticmethod(lambda _: True)


# Else it writes what YAML takes for the end of a line such that it is read as a blank.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if set(text) & {"\x85", "\u2028", "\u2029"} else None
    ),
)
_Dumper.add_representer(_Literal, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _literal(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_literal(element) for element in value]
    looks_like_a_template = isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))
    return _Literal(value) if looks_like_a_template else value


@dataclasses.dataclass(frozen=True)
class Written:
    """A class of variables, written by hand.

    Attributes:
        name: what it shows.
        text: the YAML.
        refused: a part of the message by which it is refused; empty is that it is taken.
        environment: variables of which the app is handed exactly these bytes, where it is taken.
        secrets: the same of its secrets.
    """

    name: str
    text: str
    refused: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)
    has_directives = False

    @property
    def values(self) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """The same by the app's name."""
        return {WRITTEN: (self.environment, self.secrets)}


def _app(more: str = "", domains: str = "[shop.example.com]", beside: str = "") -> str:
    lines = [f"domains: {domains}", f"source: {{path: {SOURCE}}}", "entrypoint: main:app", *more.splitlines()]
    return "".join([f"slipway_apps:\n  {WRITTEN}:\n", *(f"    {line}\n" for line in lines), beside])


def _of_environment(name: str, yaml_text: str, value: str = "", refused: str = "") -> Written:
    return Written(name, _app(f"environment: {{A: {yaml_text}}}"), refused, {"A": value} if not refused else {})


_TWO = _app().partition("\n")[2].replace("written:", "blog:", 1)
CLASSES = [
    Written(
        "an IDN", _app(domains="[bücher.example]"), 'domains[0] is "bücher.example": a domain is written in its ASCII'
    ),
    Written("the ASCII form of an IDN", _app(domains="[xn--bcher-kva.example]")),
    Written("the ASCII form of no IDN", _app(domains="[xn--zz.example]"), 'domains[0] is "xn--zz.example"'),
    Written("a secret's name that is very long", _app(f"secret_environment: {{A{'x' * 249}: canary}}")),
    Written(
        "a secret's name that no file can have",
        _app(f"secret_environment: {{A{'x' * 250}: canary}}"),
        "slipway_apps.written.secret_environment",
    ),
    Written("a wildcard", _app(domains='[shop.example.com, "*.example.com"]')),
    Written("a wildcard alone", _app(domains='["*.example.com"]'), "slipway_apps.written.domains is"),
    Written("a trailing dot", _app(domains="[shop.example.com.]"), "slipway_apps.written.domains[0]"),
    Written("a single label", _app(domains="[default, include, hostnames, localhost]")),
    Written("an address for a domain", _app(domains="[203.0.113.7]"), "slipway_apps.written.domains[0]"),
    Written("the longest domain", _app(domains=f"[{'.'.join(['a' * 63] * 3 + ['a' * 61])}]")),
    Written(
        "a domain that is too long", _app(domains=f"[{'.'.join(['a' * 63] * 3 + ['a' * 62])}]"), "written.domains[0]"
    ),
    Written("port 0", _app("index: {url: 'https://x:0/'}"), "slipway_apps.written.index.url"),
    Written("port 0 of the public", _app(beside="slipway_public_port: 0\n"), "slipway_public_port is 0"),
    Written("port 65536", _app("index: {url: 'https://x:65536/'}"), "slipway_apps.written.index.url"),
    Written("port 65536 of the public", _app(beside="slipway_public_port: 65536\n"), "slipway_public_port is 65536"),
    Written("port 65535", _app("index: {url: 'https://x:65535/'}", beside="slipway_public_port: 65535\n")),
    _of_environment("YAML's no", "no", refused="slipway_apps.written.environment.A is false"),
    _of_environment("no in quotes", "'no'", "no"),
    _of_environment("1e3", "1e3", "1e3"),
    Written("1e3 seconds", _app("drain_seconds: 1e3"), "slipway_apps.written.drain_seconds is"),
    _of_environment("an octal number", "0123", refused="slipway_apps.written.environment.A is 83"),
    _of_environment("a hexadecimal number", "0x10", refused="slipway_apps.written.environment.A is 16"),
    _of_environment("a time of the day", "12:30", refused="slipway_apps.written.environment.A is 750"),
    _of_environment("a float", "1.10", refused="slipway_apps.written.environment.A is 1.1"),
    _of_environment("a date", "2026-01-31", refused="slipway_apps.written.environment.A is"),
    _of_environment("a number", "-5", "-5"),
    _of_environment("per cent", "'%n %% 50%'", "%n %% 50%"),
    _of_environment("dollars", "'$ $$ $A ${A} $(id) `id`'", "$ $$ $A ${A} $(id) `id`"),
    _of_environment("quotes", """'"a" ''b'' "'""", '"a" \'b\' "'),
    _of_environment("backslashes", "'\\ \\\\ \\n \\x41 \\'", "\\ \\\\ \\n \\x41 \\"),
    _of_environment("other ends of lines", '"a\\Nb\\Lc\\Pd"', "a\x85b\u2028c\u2029d"),
    _of_environment("a newline", '"a\\nb"', refused="slipway_apps.written.environment.A is"),
    _of_environment("a carriage return", '"a\\rb"', refused="slipway_apps.written.environment.A is"),
    _of_environment("NUL", '"a\\0b"', refused="slipway_apps.written.environment.A is"),
    _of_environment("control characters", '"\\t\\x01\\e[0m\\x7f\\N\\L"', "\t\x01\x1b[0m\x7f\x85\u2028"),
    _of_environment("a noncharacter", '"\\uFFFE"', refused="slipway_apps.written.environment.A is"),
    _of_environment("beyond the first plane", "😀é\u0301", "😀é\u0301"),
    _of_environment("blanks around", "'  a  '", "  a  "),
    _of_environment("nothing", "''", ""),
    _of_environment("what looks like a template", "!unsafe '{{ 1 }}{% x'", "{{ 1 }}{% x"),
    _of_environment("a template", "\"{{ 'a' * 2 }}\"", "aa"),
    _of_environment("the longest value", "x" * 100_000, "x" * 100_000),
    _of_environment("a value that is too long", "x" * 100_001, refused="slipway_apps.written.environment.A is"),
    Written(
        "the largest environment",
        _app("environment: {" + ", ".join(f"A{n}: {'é' * 49_000}" for n in range(5)) + "}"),
        environment={f"A{n}": "é" * 49_000 for n in range(5)},
    ),
    Written(
        "secrets of any text",
        _app('secrets: {a: "\\n %n $A \\"\\\\ \\u2028\\n", b: !unsafe "{{ 1 }}", c: ' + "x" * 900_000 + "}"),
        secrets={"a": '\n %n $A "\\ \u2028\n', "b": "{{ 1 }}", "c": "x" * 900_000},
    ),
    *(
        Written(
            f"the {option} of any text",
            _app(option + """: {A: '%n $A \\ "', B: "a'b\\e\\L", C: !unsafe '{{ 1 }}', D: "{{ 'a' * 2 }}"}"""),
            environment={"A": '%n $A \\ "', "B": "a'b\x1b\u2028", "C": "{{ 1 }}", "D": "aa"},
        )
        for option in ENVIRONMENTS
    ),
    Written("a secret's name", _app("secrets: {a.b: x}"), "slipway_apps.written.secrets.a.b"),
    Written("a longest header", _app(f"headers: {{X-A: '{'$' * 235}'}}")),
    Written(
        "a header that is too long", _app(f"headers: {{X-A: {'x' * 4001}}}"), "slipway_apps.written.headers.X-A is"
    ),
    Written("a header with everything", _app("headers: {X-A: '\"$uri\" %n \\ {} ; ü'}")),
    Written(
        "the longest paths",
        _app(
            f"ready_path: /{'e' * 999}\nwebsocket_paths: [/{'-' * 999}]\nredirects: {{/{'.' * 999}: /{'~' * 999}}}\n"
            f"private_paths: [/{'-' * 999}]\nlimits: {{paths: {{/{'~' * 999}: 5r/m}}}}\n"
            f"static: {{/{'.' * 998}/: {'a' * 255}}}"
        ),
    ),
    Written("a path that is too long", _app(f"ready_path: /{'x' * 1000}"), "slipway_apps.written.ready_path is"),
    Written("a path with a dollar", _app("ready_path: /$uri"), "slipway_apps.written.ready_path is"),
    Written("an app twice", _app() + _TWO.replace("blog:", "written:", 1), "written"),
    Written(
        "a domain twice", _app(domains="[a.example, a.example]"), 'slipway_apps.written.domains has "a.example" twice'
    ),
    Written("a domain of two apps", _app() + _TWO, 'slipway_apps.blog.domains has "shop.example.com"'),
    Written("a path twice", _app("websocket_paths: [/ws, /ws/]"), "slipway_apps.written.websocket_paths has"),
    Written(
        "a network in two spellings",
        _app('private_allow: ["::1", 10.0.0.0/8, "0:0::1/128"]'),
        "slipway_apps.written.private_allow has",
    ),
    Written("a path of two kinds", _app("websocket_paths: [/a]\nstatic: {/a/: a}"), "slipway_apps.written.static has"),
    Written("no e-mail", _app("certificate: {issuer: letsencrypt}")),
    Written(
        "an empty e-mail",
        _app("certificate: {issuer: letsencrypt, email: ''}"),
        "slipway_apps.written.certificate.email",
    ),
    Written(
        "empty lists",
        _app(
            "environment: {}\nsecrets: {}\nheaders: {}\nwebsocket_paths: []\nstatic: {}\nredirects: {}\nextras: []\n"
            "private_paths: []\nprivate_allow: []\nlimits: {paths: {}}\nnginx: {}\ncertificate: {}\npackages: []"
        ),
    ),
    Written("an empty list of domains", _app(domains="[]"), "slipway_apps.written.domains is []"),
    Written("no apps", "slipway_apps: {}\n"),
    Written("a name of Slipway's own", _app() + "  acme: {}\n", 'slipway_apps has the app "acme"'),
    Written("seconds below nothing", _app("drain_seconds: -1"), "slipway_apps.written.drain_seconds is -1"),
    Written("seconds without end", _app("ready_seconds: 1000000000000"), "slipway_apps.written.ready_seconds is"),
    Written(
        "the largest numbers",
        _app(
            "ready_seconds: 3600\ndrain_seconds: 86400\nkeep_releases: 1000\nmax_requests: 1000000000\nworkers: 999",
            beside="nginx_worker_connections: 262144\n",
        ),
    ),
    Written(
        "the smallest numbers",
        _app("ready_seconds: 1\ndrain_seconds: 0\nkeep_releases: 1", beside="nginx_worker_connections: 64\n"),
    ),
]
