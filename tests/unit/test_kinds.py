"""What a value may be, kind by kind."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from ansible_collections.slipway.asgi.plugins.plugin_utils import kinds

LABEL = "a" * 63


def private_key(content: bytes, kind: str = "OPENSSH ", first: str = "") -> str:
    """A file as ssh-keygen writes it, around something that is no key."""
    lines = [f"-----BEGIN {kind}PRIVATE KEY-----", *first.splitlines(), base64.b64encode(content).decode()]
    return "\n".join([*lines, f"-----END {kind}PRIVATE KEY-----", ""])


OPENSSH = b"openssh-key-v1\0\0\0\0"
HOST_KEY = "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabcdefgh"

VALID: dict[str, list[Any]] = {
    "app_name": ["a", "shop", "shop-2", "a" + "b" * 22, "builder", "check-in"],
    "domain": [
        "localhost",
        "shop.example.com",
        "*.example.com",
        "xn--bcher-kva.example",
        "1.example",
        f"{LABEL}.example",
        ".".join([LABEL, LABEL, LABEL, "a" * 61]),
    ],
    "first_is_plain": [["shop.example.com"], ["shop.example.com", "*.example.com"]],
    "source": [
        {"path": "../shop"},
        {"git": "https://git.example.com/shop.git"},
        {"git": "x", "version": "v1"},
        {"git": "git@git.example.com:shop.git", "version": "v1", "key": "k", "host_key": "h"},
        {"git": "ssh://git@git.example.com/shop.git", "key": "k"},
        {"git": "https://git.example.com/shop.git", "token": "t"},
        {"git": "https://git.example.com/shop.git", "token": "t", "username": "u"},
    ],
    "private_key": [
        private_key(OPENSSH + b"\4none"),
        private_key(OPENSSH + b"\4none").strip(),
        private_key(b"x", "RSA "),
        private_key(b"x", ""),
    ],
    "secret_line": ["x", "a b", 'a#b"c\\d', "ключ"],
    "username": ["deploy", "x-access-token", "__token__", "me@example.com", 7],
    "host_key": [
        HOST_KEY,
        f"{HOST_KEY}\n[git.example.com]:2222 ecdsa-sha2-nistp256 {'A' * 24}== a word\n",
        f"@cert-authority *.example.com ssh-rsa {'A' * 24}",
    ],
    "extra": ["postgres", "a", "a-b_c.d", "2"],
    "package": ["libpq-dev", "g++", "libstdc++6", "python3.13-dev", "7z"],
    "index": [
        {"url": "https://pypi.example.com/simple"},
        {"url": "http://pypi.example.com/simple"},
        {"url": "https://pypi.example.com/simple", "username": "u", "password": "p"},
    ],
    "index_url": ["https://pypi.example.com/simple/", "http://10.0.0.1:3141/root/+simple/", "https://x"],
    "git_url": [
        "https://git.example.com/shop.git",
        "ssh://git@git.example.com:2222/shop.git",
        "git@git.example.com:shop/shop.git",
        "file:///srv/git/shop.git",
    ],
    "git_version": ["v1.4.2", "main", "feature/cart", "c4a52de0c4a52de0c4a52de0c4a52de0c4a52de0"],
    "entrypoint": ["main:app", "shop.main:app", "shop_2.main:create()", "shop:api.app"],
    "python": ["system", "3.9", "3.13"],
    "workers": ["auto", "1", 1, 8, 999],
    "url_path": ["/", "/ready", "/api/v1.0/~me/ready-now_"],
    "prefix": ["/static/", "/a/b-c/", "/~me/v1.0/"],
    "inner_path": ["static", "shop/static", "a..b/c-d", "_site/v1.0"],
    "environment_name": ["A", "_", "SHOP_CURRENCY", "shop2", "HOMEPAGE", "MY_SLIPWAY_APP"],
    "line": ["", "EUR", 'say "hi" for $5 to 50% of \'em \\o/', "Grüße", "a\tb", 8080, -1],
    "secret_name": ["a", "database_url", "A" * 64],
    "secret_value": ["x", " ", "two\nlines\n", "ключ"],
    "environment_secret": ["x", "two\nlines\r\n", "\x1b\t", "ключ 🚢 \ufeff", "x" * 100_000],
    "writable": ["/data", "/srv/media", "/srv/slipway-media/a", "/var/lib/shop", "/var/log/shop", "/mnt/a.b_c+d@e-f/1"],
    "memory": ["1M", "512M", "2G", "999999M"],
    "cpu_weight": [1, "50", 10000],
    "tasks": [10, "512", 4096],
    "header": ["Referrer-Policy", "X-1", "ETag", "A" * 64],
    "header_value": ["", "no-referrer", "default-src 'self'; img-src https://*.example.com", '$uri "x"', 0],
    "headers": [{}, {"X-A": "1", "X-B": "1"}],
    "site_path": ["/", "/ws", "/.well-known/other", "/.slipway2"],
    "size": ["1", "10m", "512k", "2g", 4096],
    "certificate": [
        {},
        {"fullchain": "a.pem", "privkey": "a.key"},
        {"issuer": "self-signed", "email": "ops@example.com"},
        {"issuer": "letsencrypt"},
        {"issuer": "https://ca.example.com/dir", "email": "ops@example.com", "key_type": "rsa"},
    ],
    "issuer": ["self-signed", "letsencrypt", "letsencrypt-staging", "https://10.0.0.1:9000/acme/acme/directory"],
    "email": ["ops@example.com", "o'neill+tls@mail.example.co.uk"],
    "profile": ["shortlived", "tls_server-2.0"],
    "credential_name": ["api_token", "secret"],
    "key_name": ["shop", "kid-1/2==", "https://ca.example.com/key/1"],
    "redirects": [{}, {"/old": "/new", "/": "/app/", "/a/": "/b/", "/a": "https://www.example.com/"}],
    "redirect": ["/", "/new", "/new/", "https://www.example.com/", "https://www.example.com:8443/a/b.html"],
    "directives": ["proxy_read_timeout 5m;", "location = /x {\n\treturn 404;\n}\n"],
    "rate": ["1r/s", "5r/m", "200r/s burst=50", "5r/m burst=1"],
    "count": [0, 1, "50", 99999],
    "proxy": ["203.0.113.7", "10.0.0.0/8", "2001:db8::/32"],
    "network": ["203.0.113.7", "10.0.0.0/8", "0.0.0.0/0", "::1", "2001:db8::/32", "2001:DB8::7/128"],
}

INVALID: dict[str, list[tuple[Any, str]]] = {
    "app_name": [
        *(
            (value, "1 to 23 lower-case letters, digits and dashes")
            for value in ("", "Shop", "1shop", "-shop", "shop_2", "shop.2", "shop\n", "bücher", "a" * 24, 5, True, None)
        ),
        *(
            (value, "taken by Slipway itself; choose another")
            for value in ("acme", "build", "certificates", "pending", "wake", "a-build", "a-check", "a-migrate")
        ),
    ],
    "domain": [
        ("https://shop.example.com", "has no scheme; write shop.example.com"),
        ("https://shop.example.com:8443/cart", "has no scheme; write shop.example.com"),
        ("https://", "has no scheme; write shop.example.com"),
        ("bücher.example", "in its ASCII form, such as xn--bcher-kva.example"),
        *(
            (value, "lower-case labels of letters, digits and dashes")
            for value in (
                "",
                " ",
                "shop example.com",
                "shop.example.com ",
                "shop.example.com\n",
                "shop.example.com.",
                "shop..example.com",
                "Shop.example.com",
                "shop.example.com:443",
                "shop.example.com/cart",
                "shop_1.example.com",
                "-shop.example.com",
                "shop-.example.com",
                "*",
                "www.*.example.com",
                "*shop.example.com",
                "shop;example.com",
                f"{LABEL}a.example",
                ".".join([LABEL, LABEL, LABEL, "a" * 62]),
            )
        ),
    ],
    "first_is_plain": [([], "at least one domain is needed"), (["*.example.com"], "cannot be a wildcard")],
    "source": [
        ({}, "exactly one of path and git"),
        ({"path": "a", "git": "b"}, "exactly one of path and git"),
        *(({"path": "a", key: "x"}, f"{key} goes with git") for key in ("version", "key", "token", "username")),
        ({"git": "git@x:shop.git", "key": "k", "token": "t"}, "of key and token one is needed"),
        *(({"git": "https://x/shop.git", key: "x"}, f"{key} goes with an ssh address") for key in ("key", "host_key")),
        *(
            ({"git": url, "token": "t"}, "token goes with an https address")
            for url in ("http://x/shop.git", "git@x:shop.git", "ssh://git@x/shop.git", "file:///srv/shop.git")
        ),
        ({"git": "https://x/shop.git", "username": "u"}, "username goes with token"),
    ],
    "git_url": [
        *((url, "the address holds a login") for url in ("https://u:p@x/shop.git", "https://t@x/a", "ssh://u:p@x/a")),
        *(
            (url, "a port, a number from 1 to 65535")
            for url in ("ssh://git@x:shop/shop.git", "https://x:99999/shop.git", "https://x:0/shop.git")
        ),
        *(
            (value, "https://..., ssh://... or user@host:path")
            for value in (
                "",
                "shop.git",
                "/srv/git/shop.git",
                "git.example.com:shop.git",
                "http//git.example.com/shop.git",
                "ext::sh -c id",
                "--upload-pack=id",
                "https://git.example.com/a b.git",
                "https://git.example.com/$(id).git",
                "https://git.example.com/shop.git\n",
            )
        ),
    ],
    "git_version": [
        (value, "a tag, a branch or a commit")
        for value in ("", "-v1", "--upload-pack=id", "v1 v2", "main\n", "main;id", "a" * 201)
    ],
    "entrypoint": [
        (value, "module:attribute, such as shop.main:app")
        for value in (
            "",
            "shop",
            "shop.main",
            "shop.main.app",
            "shop/main.py:app",
            ":app",
            "shop:",
            "shop:app:x",
            "shop .main:app",
            "shop.main:app\n",
            "1shop:app",
            "shop-2:app",
            "shop:app(x)",
        )
    ],
    "python": [(value, '"system" or a version such as "3.13"') for value in ("", "3", "3.", "2.7", "3.13.1", "py3.13")],
    "workers": [
        (value, 'either "auto" or a number from 1 to 999')
        for value in ("", 0, -1, 1000, 2.5, "four", "Auto", " 4", "4\n", "1\u0663")
    ],
    "url_path": [
        (value, "a path begins with /")
        for value in ("", "ready", "/a b", "/a?b=c", "/a#b", "/a%20b", "/{a}", "/a;b", "/a\n", "/é", "https://x/y")
    ],
    "prefix": [
        *(
            (value, "begins and ends with /")
            for value in ("", "/", "static/", "/static", "/a b/", "//", "/a//", "/a/\n")
        ),
        ("/.slipway/", "answered by Slipway itself"),
        ("/.well-known/acme-challenge/", "answered by Slipway itself"),
    ],
    "inner_path": [
        (value, "a directory inside the source is needed")
        for value in ("", ".", "/srv", "..", "../a", "a/../../b", "a/.git", ".git", "a//b", "a/", "a b", "a\n", "$HOME")
    ],
    "environment_name": [
        *(
            (value, "letters, digits and underscores")
            for value in ("", "SHOP CURRENCY", "1A", "A-B", "A.B", "A=B", "A\n", "É", 5, True)
        ),
        *(
            (value, "set by Slipway or systemd")
            for value in ("SLIPWAY_APP", "SLIPWAY_ANYTHING", "LISTEN_FDS", "NOTIFY_SOCKET", "HOME", "PATH", "USER")
        ),
        *((f"{name}_DIRECTORY", "set by Slipway or systemd") for name in ("CREDENTIALS", "STATE", "RUNTIME")),
    ],
    "line": [
        *((value, "a single line") for value in ("a\nb", "a\n", "\r", "a\0b")),
        (True, "YAML reads this as a boolean; put it in quotes"),
        (False, "YAML reads this as a boolean; put it in quotes"),
        (None, "YAML reads this as nothing; put it in quotes"),
        (1.10, "YAML reads this as a number and may change its digits; put it in quotes"),
        ([1], "a single text or whole number is needed"),
        ({"a": 1}, "a single text or whole number is needed"),
    ],
    "secret_name": [
        (value, "letters, digits and underscores") for value in ("", "a b", "1a", "a-b", "../a", "a/b", "a\n", "a" * 65)
    ],
    "secret_value": [
        *((value, "a text that is not empty") for value in ("", None, 5, True, ["x"])),
        ("a\0b", "no NUL byte"),
    ],
    "header": [
        (value, "letters, digits and dashes")
        for value in ("", "X A", "X:", "X\n", 'X"', "X_A", "X.A", "X{}", "1X", "É", "A" * 65, 5)
    ],
    "header_value": [
        *((value, "without control characters") for value in ("a\tb", "a\x7f", "a\x1b[0m")),
        ("a\nX-Other: b", "a single line"),
        (True, "YAML reads this as a boolean; put it in quotes"),
    ],
    "headers": [({"X-A": "1", "x-a": "2", "X-B": ""}, "twice are: x-a")],
    "site_path": [
        ("ws", "a path begins with /"),
        *(
            (value, "/.slipway and /.well-known/acme-challenge are answered by Slipway itself")
            for value in ("/.slipway", "/.slipway/ready", "/.well-known/acme-challenge/x")
        ),
    ],
    "size": [
        (value, "a number with k, m or g") for value in ("", "0", "10 m", "10M", "10mb", "1.5g", "-1", "m", "1\u0663m")
    ],
    "private_key": [
        *(
            (value, "an OpenSSH private key is needed: all of its file")
            for value in ("", "hunter2", 5, None, "~/.ssh/id_ed25519", HOST_KEY, "-----BEGIN CERTIFICATE-----\nx\ny")
        ),
        (private_key(b"hunter2").rpartition("-----END")[0] + "x", "has no end"),
        (private_key(OPENSSH + b"\12aes256-ctrhunter2"), "has a passphrase, which nobody could type"),
        (private_key(b"hunter2", "ENCRYPTED "), "has a passphrase"),
        (private_key(b"hunter2", "RSA ", "Proc-Type: 4,ENCRYPTED"), "has a passphrase"),
    ],
    "secret_line": [(value, "a single line is needed") for value in ("", " x", "x ", "hunter2\n", "hunter2\nx")],
    "username": [(value, "without blanks and colons") for value in ("", "a b", "a:b", "a\n", "ü")],
    "host_key": [
        (value, "lines as in known_hosts are needed")
        for value in ("", "SHA256:abc", HOST_KEY.partition(" ")[2], f"{HOST_KEY}\nx", f"# {HOST_KEY}")
    ],
    "extra": [
        (value, "letters, digits and . _ -, such as postgres")
        for value in ("", "-a", "a-", "a b", "a[b]", "--all-extras")
    ],
    "package": [
        (value, "a Debian package is") for value in ("", "-y", "Libpq", "a b", "a=1", "a:i386", "./a.deb", "ä")
    ],
    "index": [
        ({"url": "https://x", "username": "u"}, "username and password go together"),
        ({"url": "https://x", "password": "hunter2"}, "username and password go together"),
        ({"url": "http://x", "username": "u", "password": "hunter2"}, "over https only"),
    ],
    "index_url": [
        *((value, "an index is https://...") for value in ("", "pypi.example.com", "file:///srv", "https://x/?a=b")),
        ("https://u:hunter2@pypi.example.com/simple", "set username and password beside it"),
    ],
    "redirects": [
        ({"/a/": "/b"}, "/a/ takes everything beneath it along, so that /b has to end with / as well"),
        *(({start: target}, "without end") for start, target in (("/", "/"), ("/a", "/a"), ("/a/", "/a/b/"))),
    ],
    "redirect": [
        *(
            (value, "a redirect leads to a path such as /new")
            for value in (
                "",
                "new",
                "http://www.example.com/",
                "https://www.example.com",
                "/a?b",
                "/a b",
                "/$uri",
                "/a\n",
            )
        ),
        ("//evil.example/", "would lead to another host"),
    ],
    "directives": [
        *((value, "one or more directives of nginx are needed") for value in ("", " \n", 5, True, ["x;"])),
        *((value, "without control characters") for value in ("a;\0", "a;\r\n", "a \x1b;")),
    ],
    "rate": [
        (value, "a rate is a number with r/s or r/m")
        for value in (
            "",
            "0r/s",
            5,
            "5",
            "5/m",
            "5r/h",
            "5 r/s",
            "5r/s burst",
            "5r/s burst=x",
            "5r/s burst=0",
            "5r/s nodelay",
            "5r/s\n",
        )
    ],
    "count": [(value, "a number from 0 to 99999") for value in ("", -1, "1k", 100000, "1\n")],
    "proxy": [
        *((value, "this is everybody") for value in ("0.0.0.0/0", "::/0")),
        ("10.0.0.1/8", "the network of this address is 10.0.0.0/8"),
        ("cdn.example.com", "an address such as 203.0.113.7"),
    ],
    "network": [
        *(
            (value, "an address such as 203.0.113.7")
            for value in (
                "",
                "localhost",
                10,
                "10.0.0",
                "10.0.0.256",
                "10.0.0.0/33",
                "10.0.0.0/255.0.0.0",
                "fe80::1%eth0",
            )
        ),
        ("10.0.0.1/8", "the network of this address is 10.0.0.0/8"),
        ("10.0.0.0/8\n", "an address such as 203.0.113.7"),
    ],
    "certificate": [
        *((value, "takes fullchain and privkey, both") for value in ({"fullchain": "a"}, {"privkey": "a"})),
        ({"fullchain": "a", "privkey": "b", "issuer": "letsencrypt"}, "and nothing else"),
        ({"email": "ops@example.com"}, "email: only a CA needs this; set issuer"),
        ({"precheck": True, "dns": {}}, "dns, precheck: only a CA needs this"),
    ],
    "issuer": [
        (value, "an issuer is self-signed, letsencrypt,")
        for value in ("", "Letsencrypt", "zerossl", "http://ca.example.com/dir", "https://ca.example.com/dir?a=b", None)
    ],
    "email": [
        (value, "such as ops@example.com") for value in ("", "ops", "ops@host", "a b@example.com", "@x.y", "a@b,c")
    ],
    "profile": [(value, "a profile of the CA is") for value in ("", "a b", "a;b")],
    "credential_name": [(value, "as the plugin has it") for value in ("", "API", "a b", "a=b")],
    "key_name": [(value, "a key's name is") for value in ("", "a b", "a\nb")],
    "environment_secret": [
        *((value, "whole characters of Unicode") for value in ("a\ufffe", "\U0010ffff", "\ufdd0", "\ud800")),
        *((value, "at most 100000 bytes") for value in ("x" * 100_001, "ü" * 50_001)),
    ],
    "writable": [
        *(
            (value, "an absolute path is needed")
            for value in (
                *("", "/", "media", "./media", "../media", "/srv/media/", "/srv//media", "/srv/../etc", "/srv/.hidden"),
                *("/srv/a b", "/srv/50%", "/srv/$HOME", '/srv/"a"', "/srv/a:b", "/srv/a\n", "-/srv/a", "~/media", 7),
            )
        ),
        *(
            (f"/{name}", "the system's or Slipway's")
            for name in (
                *("bin", "boot", "dev/shm", "etc", "etc/nginx", "home/shop", "lib", "lib64", "opt", "opt/slipway/uv"),
                *("proc", "root/x", "run/shop", "srv", "srv/slipway", "srv/slipway/shop", "sys/fs", "tmp", "usr/local"),
                *("var", "var/lib", "var/lib/dpkg/info", "var/lib/slipway/blog", "var/lib/slipway-acme", "var/log"),
                *("var/log/journal", "var/spool/cron", "var/tmp/a"),
            )
        ),
    ],
    "memory": [
        (value, "a number with M or G") for value in ("", 512, "512", "512m", "1.5G", "0M", "50%", "1T", "1M\n")
    ],
    "cpu_weight": [(value, "from 1 to 10000") for value in (0, 10001, 20000, -1, "idle", True)],
    "tasks": [(value, "from 10 to 9999999") for value in (0, 9, 10_000_000, "infinity")],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, case, id=f"{name}-{case!r:.30}") for name, values in table.items() for case in values]


@pytest.mark.parametrize(("name", "value"), cases(VALID))
def test_accepts(name: str, value: Any) -> None:
    assert getattr(kinds, name)(value) is None


@pytest.mark.parametrize(("name", "case"), cases(INVALID))
def test_refuses_and_says_what_is_allowed(name: str, case: tuple[Any, str]) -> None:
    value, allowed = case
    with pytest.raises(ValueError, match=re.escape(allowed)):
        getattr(kinds, name)(value)


def test_each_kind_has_a_place_and_cases_of_both_sorts() -> None:
    used = {kind.__name__ for kind in kinds.KINDS.values()} - {"check"}
    patterns = {name for name, kind in vars(kinds).items() if kind in kinds.KINDS.values()}
    # Those two are asked for directly: an app's name is a key, and a secret's value is never kept.
    wanted = used | patterns | {"app_name", "secret_value"}
    assert set(VALID) == set(INVALID) == wanted


def test_a_message_never_holds_a_secret() -> None:
    with pytest.raises(ValueError, match=r"^a secret holds no NUL byte$"):
        kinds.secret_value("hunter2\0")
