"""What a value may be, kind by kind."""

from __future__ import annotations

import base64
import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.asgi.plugins.module_utils.slots import UNITS
from ansible_collections.slipway.asgi.plugins.plugin_utils import kinds

ROOT = Path(__file__).resolve().parents[2]
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
        "xn--mgba3gch31f060k.xn--mgbai9azgqp6j",
        "1.example",
        "1a",
        "a--b.example",
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
    "credential_value": ["x", "100 % (ok)", "%(a)", "a\"b'", "a'b\"", "a'''b"],
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
    "environment": [{}, {"A": "b", "C": 5}, {"A": "a" * 99_000, "B": "a" * 400_000}],
    "environment_name": ["A", "_", "SHOP_CURRENCY", "shop2", "HOMEPAGE", "MY_SLIPWAY_APP", "A" * 1000],
    "secret_environment_name": ["A", "SHOP_KEY", "A" * 250],
    "line": [
        "",
        "EUR",
        'say "hi" for $5 to 50% of \'em \\o/',
        "Grüße",
        "a\tb",
        "\x1b[0m\u2028",
        8080,
        -1,
        "é" * 50_000,
    ],
    "secret_name": ["a", "database_url", "A" * 64],
    "secret_value": ["x", " ", "two\nlines\n", "ключ"],
    "environment_secret": ["x", "two\nlines\r\n", "\x1b\t", "ключ 🚢 \ufeff", "x" * 100_000],
    "writable": ["/data", "/srv/media", "/srv/slipway-media/a", "/var/lib/shop", "/var/log/shop", "/mnt/a.b_c+d@e-f/1"],
    "memory": ["1M", "512M", "2G", "999999M"],
    "cpu_weight": [1, "50", 10000],
    "tasks": [10, "512", 4096],
    "header": ["Referrer-Policy", "X-1", "ETag", "A" * 64],
    "header_value": ["", "no-referrer", "default-src 'self'; img-src https://*.example.com", '$uri "x"', 0, '"' * 2000],
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
    "count": [0, 1, "50", 65535],
    "requests": [0, "10000", 1_000_000_000],
    "seconds": [1, "60", 3600],
    "drain_seconds": [0, "30", 86400],
    "propagation_seconds": [0, "120", 3600],
    "releases": [1, "5", 1000],
    "port": [1, "8443", 65535],
    "connections": [64, "16384", 262144],
    "journal_size": ["1G", "500M", "999999K"],
    "ca_file": ["company.crt", "/usr/local/share/ca-certificates/a company.crt", "../ä.crt"],
    "ca_files": [[], ["/a/company.crt", "/b/other.crt"]],
    "mirror_url": ["", "https://mirror.example.com:8443/python-build-standalone", "file:///srv/python"],
    "system_user": ["www-data", "_nginx", "a" * 31],
    "key_group": ["", "ssl-cert", "a" * 31],
    "time_of_day": ["", "04:00", "23:59"],
    "firewall_rule": ["tcp dport 5432 accept", 'iifname "docker0" accept # a comment \\n'],
    "directory": ["/srv", "/home/shop/media", "/var/cache/a.b_c+d@e-f"],
    "batches": [1, "1", "30%", "100%", [1, 5, "50%"]],
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
            for value in (
                "build",
                "wake",
                "acme",
                "pending",
                "certificates",
                "shop-build",
                "shop-check",
                "shop-migrate",
            )
        ),
    ],
    "domain": [
        ("https://shop.example.com", "has no scheme; write shop.example.com"),
        ("https://shop.example.com:8443/cart", "has no scheme; write shop.example.com"),
        ("https://", "has no scheme; write shop.example.com"),
        ("bücher.example", "in its ASCII form; write xn--bcher-kva.example"),
        ("*.Bücher.example.", "in its ASCII form; write *.xn--bcher-kva.example"),
        *(
            (value, "no domain is written like this: ")
            for value in ("☕.example", "a_ü.example", "\u200d.example", "ü..a")
        ),
        *(
            (value, "is the ASCII form of nothing: ")
            for value in ("xn--zz.example", "xn--a.example", "www.xn--shop-a", "xn--53h.example", "ab--cd.example")
        ),
        *(
            (value, "does not end in a number")
            for value in ("203.0.113.7", "shop.1", "1", "*.7", "shop.0x", "shop.0x7f", 2130706433)
        ),
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
                "xn--.example.com",
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
            for url in ("ssh://git@x:shop/shop.git", "https://x:65536/shop.git", "https://x:0/shop.git")
        ),
        ("https://a..b/shop.git", "a domain is lower-case labels"),
        ("https://1.2.3.256/shop.git", "does not end in a number"),
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
                "https://git.example.com/sh\x1bop.git",
                "https://bücher.example/shop.git",
                "-x@git.example.com:shop.git",
                "git@-oProxyCommand=id:shop.git",
                "ssh://-oProxyCommand=id/shop.git",
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
        for value in (
            "",
            "ready",
            "/a b",
            "/a?b=c",
            "/a#b",
            "/a%20b",
            "/{a}",
            "/a;b",
            "/a\n",
            "/é",
            "https://x/y",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/../a",
            f"/{'a' * 1000}",
            True,
            1.5,
        )
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
        for value in (
            "",
            ".",
            "/srv",
            "..",
            "../a",
            "a/../../b",
            "a/.git",
            ".git",
            "a//b",
            "a/",
            "a b",
            "a\n",
            "$HOME",
            True,
            None,
            "a" * 256,
        )
    ],
    "environment": [({"A": "a" * 500_000}, "all together may have 500,000 bytes, and these have 500,003")],
    "secret_environment_name": [
        ("A" * 251, "becomes that of a file, and may have 250 characters"),
        ("A-B", "letters, digits and underscores"),
        ("PATH", "set by Slipway or systemd"),
    ],
    "environment_name": [
        *(
            (value, "letters, digits and underscores")
            for value in ("", "SHOP CURRENCY", "1A", "A-B", "A.B", "A=B", "A\n", "É", 5, True)
        ),
        *(
            (value, "set by Slipway or systemd")
            for value in (
                "SLIPWAY_APP",
                "SLIPWAY_ANYTHING",
                "LISTEN_FDS",
                "NOTIFY_SOCKET",
                "HOME",
                "PATH",
                "USER",
                "MAINPID",
                "WATCHDOG_USEC",
                "INVOCATION_ID",
                "SYSTEMD_EXEC_PID",
            )
        ),
        *((f"{name}_DIRECTORY", "set by Slipway or systemd") for name in ("CREDENTIALS", "STATE", "RUNTIME")),
    ],
    "line": [
        *((value, "a single line") for value in ("a\nb", "a\n", "\r", "a\0b")),
        (True, "YAML reads this as a boolean; put it in quotes"),
        (False, "YAML reads this as a boolean; put it in quotes"),
        (None, "YAML reads this as nothing; put it in quotes"),
        (1.10, "YAML reads this as a number and may change its digits; put it in quotes"),
        (datetime.date(2026, 1, 31), "YAML reads this as a date; put it in quotes"),
        ("a\ud800", "one half of a surrogate pair"),
        ("a\ufffe", "it holds U+FFFE, which is no character"),
        ("\U0010ffff", "it holds U+10FFFF"),
        ("é" * 50_001, "it may have 100,000 bytes, and has 100,002; a file can hold more"),
        ([1], "a single text or whole number is needed"),
        (b"a", "a single text or whole number is needed"),
        ({"a": 1}, "a single text or whole number is needed"),
    ],
    "secret_name": [
        (value, "letters, digits and underscores") for value in ("", "a b", "1a", "a-b", "../a", "a/b", "a\n", "a" * 65)
    ],
    "secret_value": [
        *((value, "a text that is not empty") for value in ("", None, 5, True, ["x"])),
        ("a\0b", "no NUL byte"),
        ("hunter2\udcff", "one half of a surrogate pair"),
    ],
    "header": [
        (value, "letters, digits and dashes")
        for value in ("", "X A", "X:", "X\n", 'X"', "X_A", "X.A", "X{}", "1X", "É", "A" * 65, 5)
    ]
    + [(value, "set by nginx or the app alone") for value in ("Content-Length", "connection", "X-Request-ID")],
    "header_value": [
        *((value, "without control characters") for value in ("a\tb", "a\x7f", "a\x1b[0m")),
        ("a\nX-Other: b", "a single line"),
        (True, "YAML reads this as a boolean; put it in quotes"),
        ('"' * 2001, "it may have 4,000 bytes, and would have 4,002"),
        ("$" * 300, "it may have 4,000 bytes, and would have 5,100"),
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
    "secret_line": [
        (value, "a single line is needed") for value in ("", " x", "x ", "hunter2\n", "hunter2\rx", "a\u2028b")
    ],
    "credential_value": [
        ("hunter2\n", "a single line is needed"),
        ("%(hunter2)s", "as a reference to something else"),
        ('a"""b\'', "so many quotes of both kinds"),
    ],
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
        ("https://x:65536/", "a port, a number from 1 to 65535"),
        ("http://[::1/", "an index is https://..."),
        ("http://[1:2]/", "a port, a number from 1 to 65535"),
        ("https://x/ä", "an index is https://..."),
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
        ("https://www.example.com:65536/", "a port, a number from 1 to 65535"),
        ("https://www.example.com:0/", "a port, a number from 1 to 65535"),
        ("https://-x.example/", "a domain is lower-case labels"),
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
    "count": [(value, "a number from 0 to 65535") for value in ("", -1, "1k", 65536, "1\n", "1e3", "²")],
    "requests": [(value, "from 0 to 1000000000 is needed; 0 is never") for value in (-1, 10**12)],
    "seconds": [(value, "a number from 1 to 3600 is needed") for value in (0, "0", -1, 10**12, "1e3", "60s")],
    "drain_seconds": [(value, "a number from 0 to 86400 is needed") for value in (-1, 86401, 10**12, "1.5")],
    "propagation_seconds": [(value, "a number from 0 to 3600 is needed") for value in (-1, 3601)],
    "releases": [(value, "a number from 1 to 1000 is needed") for value in (0, -1, 1001)],
    "port": [(value, "a number from 1 to 65535 is needed") for value in (0, "0", 65536, -1, "https", "443 ")],
    "connections": [(value, "a number from 64 to 262144 is needed") for value in (0, 63, 262145)],
    "journal_size": [(value, "with K, M, G or T") for value in ("", 500, "1g", "0M", "1.5G", "1G\n", "9999999T")],
    "ca_file": [(value, "ends with .crt") for value in ("", ".crt", "/etc/ssl/.crt", "company.pem", "a\n.crt", None)],
    "ca_files": [(["/a/company.crt", "/b/company.crt"], "more than one is called company.crt")],
    "mirror_url": [
        *(
            (value, "a mirror is https://...")
            for value in ("mirror.example.com", "ftp://x/", "https://x/?a", "https://")
        ),
        ("https://x:0/", "a port, a number from 1 to 65535"),
    ],
    "system_user": [(value, "a user's name is") for value in ("", "WWW", "0", "a b", "a" * 32)],
    "key_group": [(value, "a group's name is") for value in ("WWW", "0", "a b", "a" * 32, "a\n", None)],
    # What YAML makes of 14:30 without quotes.
    "time_of_day": [(value, "four digits in quotes") for value in ("4:00", "24:00", 870, '04:00";\n', "04:60")],
    "firewall_rule": [(value, "one line of nftables'") for value in ("", "a\nb", "a\r", "tcp dport 25 accept \\")],
    "directory": [(value, "an absolute path") for value in ("", "srv", "/", "/srv/", "/a b", "/a:b", "/../a", "/%n")],
    "batches": [(value, "a number of hosts from 1") for value in (0, -1, "0%", "101%", "all", True, None, 1.5, [1, 0])],
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
    ]
    + [("https://ca.example.com:65536/dir", "a port, a number from 1 to 65535")],
    "email": [
        (value, "such as ops@example.com") for value in ("", "ops", "ops@host", "a b@example.com", "@x.y", "a@b,c")
    ]
    + [("ops@-x.example", "a domain is lower-case labels"), ("ops@xn--zz.example", "the ASCII form of nothing")],
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
    placed = [*kinds.KINDS.values(), *kinds.VARIABLES.values()]
    used = {kind.__name__ for kind in placed} - {"check"}
    patterns = {name for name, kind in vars(kinds).items() if kind in placed}
    # Those two are asked for directly: an app's name is a key, and a secret's value is never kept.
    wanted = used | patterns | {"app_name", "secret_value"}
    assert set(VALID) == set(INVALID) == wanted


def test_a_message_never_holds_a_secret() -> None:
    with pytest.raises(ValueError, match=r"^a secret holds no NUL byte$"):
        kinds.secret_value("hunter2\0")


def test_no_app_can_have_a_name_of_slipways_own() -> None:
    """All users, units and directories that the sources name, but those of the apps in examples."""
    found = set()
    for path in (path for part in ("roles", "plugins", "playbooks") for path in (ROOT / part).rglob("*")):
        if path.suffix in (".py", ".yml", ".j2"):
            text = path.read_text()
            found |= set(re.findall(r"\bu slipway-([a-z][a-z0-9-]*) ", text))
            found |= set(re.findall(r"\bslipway-([a-z][a-z0-9-]*)\.(?:path|service|slice|socket|target|timer)\b", text))
            found |= set(re.findall(r"\b(?:cache|etc|lib|log|run|srv)/slipway/([a-z][a-z0-9-]*)\b", text))
    units = {f"shop-{task}" for task, _, _ in (unit.rpartition(".") for unit in UNITS) if task}
    assert found >= {"acme", "build", "certificates", "pending", "wake"}
    for name in sorted((found | units) - {"shop", "shop-green"}):
        with pytest.raises(ValueError, match=r"taken by Slipway itself|lower-case letters"):
            kinds.app_name(name)
