"""What the nginx role writes, rendered by Ansible's own Templar and served by a real nginx."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import http.client
import http.server
import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.slipway.asgi.plugins.action.config_set import ActionModule
from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk
from ansible_collections.slipway.asgi.plugins.modules import certificates, config_set
from ansible_collections.slipway.asgi.plugins.plugin_utils.render import render_files

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nginx"
RELEASES = ["bookworm", "jammy", "noble", "trixie"]
# The nginx that serves in these tests is the one of this machine.
HERE = platform.freedesktop_os_release().get("VERSION_CODENAME", "trixie")
SITE: dict[str, Any] = {
    "name": "shop",
    "domains": ["shop.example.com", "*.shop.example.com"],
    "ready_path": "/ready",
    "request_seconds": 60,
    "websocket_paths": ["/ws"],
    "static": {"/static/": "shop/static"},
    "max_body_size": "1k",
    "nginx": None,
    "header_set": "pages",
    "hsts": "host",
    "headers": {},
    "canonical": False,
    "redirects": {},
    "private_paths": None,
    "private_allow": [],
    "limits": None,
    "trusted_proxies": [],
    "maintenance_allow": [],
}
BLOG = {**SITE, "name": "blog", "domains": ["blog.example.com"], "websocket_paths": [], "static": {}}
API = {**BLOG, "name": "a-p-i", "domains": ["api.example.com"], "header_set": "api", "hsts": "preload"}
DEFAULT_HEADERS = {
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
}


def scope_of(loader: DataLoader, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the role's templates see."""
    loader.set_basedir(str(ROLE))
    scope: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        scope |= loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    return {**scope, **variables}


def rendered(variable: str, **variables: Any) -> str:
    """One of the role's own variables."""
    loader = DataLoader()
    scope = scope_of(loader, variables)
    return str(Templar(loader, scope).template(scope[variable]))


def render(*sites: dict[str, Any], release: str = HERE, **variables: Any) -> dict[str, str]:
    """Every file that the role hands to config_set, by its path."""
    loader = DataLoader()
    facts = {"ansible_facts": {"distribution_release": release}, "nginx_sites": list(sites)}
    scope = scope_of(loader, {**facts, **variables})
    templar = Templar(loader, scope)
    nowhere: Any = None  # rendering needs no host
    action = ActionModule(Task(), nowhere, nowhere, loader, templar, nowhere)
    task = loader.load_from_file(str(ROLE / "tasks" / "configure.yml"), trusted_as_template=True)[0]
    files = render_files(action, templar.template(task["slipway.asgi.config_set"]["files"]), scope, {})
    return {file["path"]: file["content"] for file in files if "content" in file}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Journal:
    """Takes what nginx logs, as journald does."""

    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        # Once it is shut down it hears an empty message.
        while heard := self.socket.recv(1_000_000):
            self.lines.append(heard.decode(errors="replace"))

    def close(self) -> None:
        """Be gone."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        Path(self.socket.getsockname()).unlink()
        self.socket.close()

    def entry(self, text: str) -> dict[str, Any]:
        """What was logged of a request, by a text in it."""
        for _ in range(100):
            for line in self.lines:
                if text in line:
                    # As journald reads it (syslog_parse_identifier): what is before the colon is who says so.
                    head, _, message = line.partition(" nginx: ")
                    assert re.fullmatch(r"<190>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d", head)
                    entry: dict[str, Any] = json.loads(message)
                    return entry
            time.sleep(0.05)
        raise AssertionError(f"{text} was not logged")


class Front:
    """A real nginx with the role's configuration, every path of which lies in a directory of the test."""

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.fail("nginx is not installed on this machine; scripts/testbed installs it")
        self.path = path
        self.http, self.https = free_port(), free_port()
        self.start_file = path / "nginx.conf"
        for directory in (
            "conf.d",
            "sites-enabled",
            "log",
            "temp",
            "srv",
            "maintenance",
            "acme/.well-known/acme-challenge",
        ):
            (path / directory).mkdir(parents=True)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (path / "conf.d" / "test.conf").write_text("".join(f"{kind}_temp_path {path}/temp/{kind};\n" for kind in kinds))
        self.places = {
            "/etc/nginx/slipway/current": f"{path}/current",
            "/etc/nginx/slipway/maintenance": f"{path}/maintenance",
            "/etc/nginx/conf.d": f"{path}/conf.d",
            "/etc/nginx/sites-enabled": f"{path}/sites-enabled",
            "/etc/slipway/certificates": f"{path}/certificates",
            "/srv/slipway": f"{path}/srv",
            "/var/lib/slipway-acme/webroot": f"{path}/acme",
            "/var/log/nginx": f"{path}/log",
            "/run/systemd/journal.requests": str(path),
            "/run/prometheus-node-exporter.sock": f"{path}/node.sock",
            "user www-data;": f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
            "listen 80;": f"listen 127.0.0.1:{self.http};",
            "listen [::]:80;": f"listen [::]:{self.http};",
            "listen 443 ": f"listen 127.0.0.1:{self.https} ",
            "listen [::]:443 ": f"listen [::]:{self.https} ",
        }
        for name, content in files.items():
            for place, here in self.places.items():
                content = content.replace(place, here)
            file = self.start_file if name == "/etc/nginx/nginx.conf" else path / "current" / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self.command = [program, "-c", str(self.start_file), "-g", f"pid {path}/nginx.pid; daemon off;"]

    def certify(self, *sites: Mapping[str, Any]) -> None:
        directory = str(self.path / "certificates")
        options = {"apps": sites, "privkeys": {}, "root": directory, "pending": None}
        certificates.converge(options, False, Desk(self.path))

    def judge(self) -> str:
        """What ``nginx -t -q`` says: nothing where it accepts all of it."""
        done = subprocess.run([*self.command, "-t", "-q"], capture_output=True, text=True, check=False)
        return done.stderr or ("" if done.returncode == 0 else f"status {done.returncode}")

    @contextlib.contextmanager
    def running(self, journal: bool = True) -> Iterator[Front]:
        if journal:
            self.journal = Journal(self.path / "dev-log")
        process = subprocess.Popen(self.command)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.https)):
                    break
                time.sleep(0.05)
            yield self
        finally:
            process.terminate()
            process.wait()
            if journal:
                self.journal.close()

    def context(self) -> ssl.SSLContext:
        """What trusts the sites' certificates alone."""
        found = (self.path / "certificates").glob("*/fullchain.pem")
        return ssl.create_default_context(cadata="".join(file.read_text() for file in found))

    def connect(self, name: str, alpn: str = "http/1.1", source: str = "127.0.0.1") -> ssl.SSLSocket:
        context = self.context()
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection(("127.0.0.1", self.https), timeout=5, source_address=(source, 0))
        return context.wrap_socket(plain, server_hostname=name)

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        host: str = "shop.example.com",
        body: bytes = b"",
        name: str = "",
        source: str = "127.0.0.1",
    ) -> Answer:
        """An answer over HTTPS; with a body, the one to a POST. The TLS name is the host, unless it is another one."""
        connection = http.client.HTTPSConnection(host)
        connection.sock = self.connect(name or host, source=source)
        connection.request("POST" if body else "GET", path, body, {"Host": host, **(headers or {})})
        return Answer(connection)

    def say(self, request: bytes, name: str = "shop.example.com") -> Answer:
        """The answer to a request that no client would make."""
        connection = http.client.HTTPSConnection(name)
        connection.sock = self.connect(name)
        connection.sock.sendall(request)
        return Answer(connection, connection.sock)

    def ask_plain(self, path: str, host: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
        connection.request("GET", path, headers={"Host": host})
        return Answer(connection)

    def release(self, slot: str, files: Mapping[str, str], link: str) -> None:
        """Give a slot a release that holds these files, and let ``link`` name it."""
        home = self.path / "srv" / "shop"
        for name, content in files.items():
            file = home / "releases" / slot / "src" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (home / "slots" / slot).mkdir(parents=True, exist_ok=True)
        (home / "slots" / slot / "release").symlink_to(f"../../releases/{slot}")
        (home / "slots" / slot / "socket").symlink_to(self.path / f"{slot}.sock")
        (home / link).symlink_to(f"slots/{slot}" if link == "live" else f"releases/{slot}")


class Answer:
    def __init__(self, connection: http.client.HTTPConnection, sock: socket.socket | None = None) -> None:
        if sock:
            response = http.client.HTTPResponse(sock)
            response.begin()
        else:
            response = connection.getresponse()
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        connection.close()

    def seen(self) -> dict[str, str]:
        """The request as the app saw it."""
        seen: dict[str, str] = json.loads(self.body)
        return seen


class App(http.server.BaseHTTPRequestHandler):
    """An app: it says what it sees, and upgrades whoever asks for it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self.send_response_only(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "upgrade")
            self.end_headers()
            # A WebSocket that repeats what it hears.
            while heard := self.connection.recv(4096):
                self.connection.sendall(heard)
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}}).encode()
        self.send_response_only(503 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Slipway-Release", "r1")
        self.send_header("X-Slipway-Slot", "green")
        self.send_header("X-Request-ID", "the app's")
        if self.path == "/framed":
            self.send_header("X-Frame-Options", "SAMEORIGIN")
            self.send_header("X-Taste", "sweet")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "nginx"


UPGRADE = b"GET %s HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


LIVE = {
    "shop/static/app.css": "live",
    "shop/static/js/app.js": "x" * 2000,
    "shop/static/.env": "secret",
    "shop/static/.git/config": "secret",
    "shop/settings.py": "secret",
    "shop/static/packed.css": "plain",
    "shop/static/packed.css.gz": "gzip",
    "shop/static/packed.css.br": "brotli",
}
PREVIOUS = {"shop/static/app.css": "previous", "shop/static/app.0d4f8a7c.css": "previous", "shop/static/.old": "secret"}


# Its app does not answer.
DOWN = {**BLOG, "name": "down", "domains": ["down.example.com"]}
LIMITED = {
    **SITE,
    "name": "limited",
    "domains": ["limited.example.com"],
    "limits": {"requests": "1r/m burst=19", "connections": 2, "paths": {"/login": "1r/m", "/a.b/": "1r/m burst=3"}},
}
# Behind proxies, this machine among them.
BEHIND = {
    **BLOG,
    "name": "behind",
    "domains": ["behind.example.com"],
    "trusted_proxies": ["127.0.0.1", "127.0.0.6", "10.0.0.0/8", "2001:db8::/32"],
    "private_paths": ["/internal/", "/a.b"],
    "private_allow": ["203.0.113.0/24"],
}
OWN = {
    **SITE,
    "name": "own",
    "domains": ["own.example.com"],
    "nginx": {
        "http": 'map $http_accept_language $own_language {\n    default en;\n    ~^de "{{ \\" }} de";\n}',
        "server": "location = /robots.txt { return 404; }\nerror_page 503 @x;\nlocation @x { return 503 closed; }",
        "location": "proxy_set_header X-Language $own_language;\nproxy_read_timeout 5m;",
    },
}
MOVED = {
    **SITE,
    "name": "moved",
    "domains": ["moved.example.com", "www.moved.example.com", "*.old.example.com"],
    "canonical": True,
    "redirects": {
        "/": "/start",
        "/a.html": "/new",
        "/shop/": "/store/",
        "/shop/old/": "https://old.example.com:8443/x/",
        "/shop/sale": "https://sale.example.com/",
    },
}
OTHERS = [
    BLOG,
    API,
    LIMITED,
    BEHIND,
    MOVED,
    OWN,
    DOWN,
    {**DOWN, "name": "down-api", "domains": ["down-api.example.com"], "header_set": "api"},
]


# Where Prometheus is, in a network that the front below knows and one of its proxies shares.
PROMETHEUS, PROXY = "127.0.0.5", "127.0.0.6"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    path = tmp_path_factory.mktemp("nginx")
    site = {
        **SITE,
        "headers": {"x-taste": 'a "b" $c \\d {e};', "Permissions-Policy": ""},
        "maintenance_allow": ["127.0.0.9", "127.1.0.0/16", "::1"],
    }
    front = Front(path, render(site, *OTHERS, nginx_prometheus=["127.0.0.4/30", "10.0.0.0/8"]))
    front.certify(site, *OTHERS)
    front.release("green", LIVE, "live")
    for other in OTHERS:
        if "down" not in other["name"]:
            (path / "srv" / other["name"]).symlink_to("shop")
    front.release("blue", PREVIOUS, "previous")
    (path / "secret.txt").write_text("secret")
    static = path / "srv/shop/releases/green/src/shop/static"
    (static / "outside.txt").symlink_to(path / "secret.txt")
    (static / "inside.css").symlink_to("app.css")
    (static / "parent").symlink_to("..")
    for name in ("app.css.gz", "app.css.br"):
        (static / name).symlink_to(path / "secret.txt")
    (path / "acme/.well-known/acme-challenge/token").write_text("proof")
    with Server(str(path / "green.sock"), App) as app, Server(str(path / "node.sock"), App) as exporter:
        threading.Thread(target=app.serve_forever, daemon=True).start()
        threading.Thread(target=exporter.serve_forever, daemon=True).start()
        with front.running():
            yield front
        exporter.shutdown()
        app.shutdown()


# What nginx accepts.


@pytest.mark.parametrize(
    "sites",
    [
        [],
        [BLOG],
        [SITE, BLOG],
        [{**SITE, "domains": [f"{'a' * 60}.example.com"]}],
        [{**SITE, "domains": ["default"]}, {**BLOG, "domains": ["include"]}],
        [{**SITE, "websocket_paths": ["/", "/ws/", "/ws", "/live/feed"]}],
        [{**SITE, "static": {"/static/": "a/", "/media/v1.0/": "b-c/d"}}],
        [API, {**BLOG, "hsts": "subdomains", "headers": {"strict-transport-security": "max-age=60"}}],
        [{**SITE, "maintenance_allow": ["10.0.0.0/8", "10.0.0.0/8", "::/0"]}],
        [LIMITED, BEHIND, MOVED, {**BLOG, "limits": {"requests": None, "connections": 0, "paths": {"/": "1r/s"}}}],
        [{**SITE, "name": "a-b", "headers": {"C": "1"}}, {**BLOG, "name": "a", "headers": {"B-C": "2"}}],
    ],
    ids=[
        "none",
        "blog",
        "two",
        "long name",
        "words",
        "websockets",
        "static",
        "headers",
        "networks",
        "clients",
        "like names",
    ],
)
@pytest.mark.parametrize("ipv6", [True, False])
def test_nginx_accepts_it(tmp_path: Path, sites: list[dict[str, Any]], ipv6: bool) -> None:
    front = Front(tmp_path, render(*sites, nginx_ipv6=ipv6))
    front.certify(*sites)
    assert front.judge() == ""


def test_files_of_the_users_own_stay_in_force(tmp_path: Path) -> None:
    front = Front(tmp_path, render(SITE))
    front.certify(SITE)
    (tmp_path / "sites-enabled" / "mine").write_text(f"server {{ listen {front.http} default_server; return 204; }}")
    (tmp_path / "conf.d" / "mine.conf").write_text(
        "server_tokens off; client_max_body_size 5m; gzip_vary on; keepalive_timeout 10s; ssl_session_tickets off;"
        "underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;"
    )
    assert front.judge() == ""
    (tmp_path / "conf.d" / "mine.conf").write_text("no_such_directive on;")
    assert "no_such_directive" in front.judge()


def test_nothing_stays_open_in_a_template() -> None:
    with pytest.raises(AnsibleError, match="max_body_size"):
        render({key: value for key, value in SITE.items() if key != "max_body_size"})


def test_a_second_rendering_is_the_same() -> None:
    assert render(SITE, BLOG) == render(SITE, BLOG)


@pytest.mark.parametrize("release", RELEASES)
def test_what_differs_between_distributions_is_in_the_table(release: str) -> None:
    files = render(SITE, release=release)
    http2_directive = release == "trixie"
    assert ("http2 on;" in files["snippets/tls.conf"]) is http2_directive
    for name in ("nginx.conf", "sites/shop.conf"):
        assert ("listen 443 ssl http2;" in files[name]) is not http2_directive
    # Where the distribution has the modules, which playbooks/site.yml installs.
    assert ("brotli_static on;" in files["snippets/static.conf"]) is (release != "jammy")
    assert ("X25519MLKEM768" in files["snippets/tls.conf"]) is (release == "trixie")
    assert ("ssl_reject_handshake on;" in files["nginx.conf"]) is (release != "jammy")


def test_an_unknown_distribution_is_not_guessed() -> None:
    with pytest.raises(AnsibleError):
        render(SITE, release="sarge")


def test_limits_on_open_files_follow_the_connections() -> None:
    files = render(nginx_worker_connections=1000)
    assert "worker_connections 1000;" in files["nginx.conf"]
    assert "worker_rlimit_nofile 2000;" in files["nginx.conf"]
    drop_in = files["/etc/systemd/system/nginx.service.d/50-slipway-limits.conf"]
    assert "LimitNOFILE=2000:524288" in drop_in


@pytest.mark.parametrize(("master", "score"), [("www-data", 1.7), ("root", 2.8)])
def test_nginx_is_locked_down_and_tried_in_the_same_sandbox(master: str, score: float, tmp_path: Path) -> None:
    options = {"nginx_master": master, "nginx_writable": ["/srv/uploads", "/srv/cache"]}
    drop_in = render(**options)["/etc/systemd/system/nginx.service.d/50-slipway-sandbox.conf"]
    properties = drop_in.partition("[Service]\n")[2].partition("RuntimeDirectory=")[0].splitlines()
    assert ("User=www-data" in properties) is (master == "www-data")
    assert "ReadWritePaths=-/var/log/nginx -/var/lib/nginx -/var/cache/nginx /srv/uploads /srv/cache" in properties
    tried = shlex.split(shlex.split(rendered("__nginx_validate", **options))[2])
    assert [word.removeprefix("--property=") for word in tried if word.startswith("--property=")] == properties
    # What that is worth, where there is a systemd to ask.
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "nginx.service"
        unit.write_text(f"[Service]\nExecStart=/bin/true\n{drop_in}")
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", shown)[0]) == score


def test_a_restart_does_not_wait_for_websockets() -> None:
    drop_in = render()["/etc/systemd/system/nginx.service.d/50-slipway-sandbox.conf"]
    stops = [line.partition("=")[2] for line in drop_in.splitlines() if line.startswith("ExecStop=")]
    # The first takes the distribution's away.
    assert stops[0] == "" and [re.findall(r"--retry (\S+)", stop) for stop in stops[1:]] == [["QUIT/1"]]


def test_the_journal_of_requests_is_nginxs_alone_and_within_bounds() -> None:
    files = render(nginx_journal_max="300M")
    settings = files["/etc/systemd/journald@requests.conf"].splitlines()
    assert {"Storage=persistent", "SystemMaxUse=300M", "RateLimitIntervalSec=0", "ForwardToSyslog=no"} <= set(settings)
    socket_drop_in = files["/etc/systemd/system/systemd-journald@requests.socket.d/50-slipway.conf"]
    assert socket_drop_in.endswith("SocketGroup=www-data\nSocketMode=0660\n")
    drop_in = files["/etc/systemd/system/nginx.service.d/50-slipway-sandbox.conf"]
    for relation in ("Wants", "After"):
        assert f"\n{relation}=systemd-journald@requests.socket\n" in drop_in


def test_the_upstream_is_the_live_link() -> None:
    site = render(SITE)["sites/shop.conf"]
    # nginx keeps connections by address: the second try is never one of those that died with the first.
    assert "server unix:/srv/slipway/shop/live/socket max_fails=0;" in site
    assert "server unix:/srv/slipway/shop/./live/socket max_fails=0 backup;" in site
    assert "keepalive 32;" in site and "keepalive_timeout 300ms;" in site
    proxy = render(SITE)["snippets/proxy.conf"]
    assert "proxy_next_upstream error;" in proxy


def test_every_location_has_the_headers() -> None:
    secure = render({**SITE, "static": {"/a/": "a", "/b/": "b"}})["sites/shop.conf"].split("listen 443")[1]
    blocks = secure.split("location ")[1:]
    assert len(blocks) == 12
    assert all("include /etc/nginx/slipway/current/headers/shop.conf;" in block for block in blocks)


# What clients see.


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/broken", 503),
        ("/static/app.css", 200),
        ("/static/none.css", 404),
        ("/static/", 404),
        ("/ws", 200),
    ],
)
def test_security_headers_are_on_every_answer_once(front: Front, path: str, status: int) -> None:
    answer = front.ask(path)
    assert answer.status == status
    for name in DEFAULT_HEADERS - {"Permissions-Policy"}:
        assert len(answer.headers.get_all(name, [])) == 1, name
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"


# Longer than what nginx reads of a request line or of a header.
LONG = b"x" * 20000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nBad Header\r\n: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /" + LONG + b" HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nX: " + LONG + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5000\r\n\r\n", 413),
        (b"TRACE / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", 405),
        (b"GET / HTTP/9.1\r\nHost: shop.example.com\r\n\r\n", 505),
    ],
    ids=["malformed", "long line", "long header", "large body", "method", "version"],
)
def test_nginxs_own_errors_have_the_headers(front: Front, request_: bytes, status: int) -> None:
    answer = front.say(request_)
    assert answer.status == status
    for name in DEFAULT_HEADERS - {"Permissions-Policy"}:
        assert len(answer.headers.get_all(name, [])) == 1, name


def test_an_api_has_headers_of_its_own(front: Front) -> None:
    answer = front.ask("/", host="api.example.com")
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains; preload"
    assert answer.headers["Cache-Control"] is None


def test_headers_can_be_added_and_taken_away(front: Front) -> None:
    headers = front.ask("/").headers
    assert headers["X-Taste"] == 'a "b" $c \\d {e};'
    assert headers["Permissions-Policy"] is None


def test_the_default_policy_names_no_foreign_source(front: Front) -> None:
    policy = front.ask("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "  " not in policy


def test_the_apps_own_header_stands_alone(front: Front) -> None:
    headers = front.ask("/framed").headers
    assert headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
    assert headers.get_all("X-Taste") == ["sweet"]


@pytest.mark.parametrize("path", ["/logged", "/ws", "/static/app.css", "/static/none.css", "/ready", "/.slipway/ready"])
def test_the_client_is_told_the_id_that_is_logged(front: Front, path: str) -> None:
    (identifier,) = front.ask(path).headers.get_all("X-Request-ID", [])
    assert re.fullmatch("[0-9a-f]{32}", identifier)
    if path == "/.slipway/ready":
        return
    assert front.journal.entry(identifier)["uri"] == path


def test_release_and_slot_are_hidden_but_logged(front: Front) -> None:
    headers = front.ask("/hidden").headers
    assert (headers["X-Slipway-Release"], headers["X-Slipway-Slot"]) == (None, None)
    entry = front.journal.entry('"/hidden"')
    assert (entry["release"], entry["slot"]) == ("r1", "green")


def test_a_request_is_a_line_of_json(front: Front) -> None:
    agent = 'x"y\\z\t{}'
    seen = front.ask(
        "/json?a=%22&b=c", {"User-Agent": agent, "Referer": "https://é.example/"}, source="127.0.0.2"
    ).seen()
    entry = front.journal.entry("/json?")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", entry.pop("time"))
    for name in ("connect", "header", "response"):
        assert float(entry.pop(f"upstream_{name}_time")) < 5
    assert 0 <= entry.pop("request_time") < 5 and entry.pop("bytes") > 100
    assert entry.pop("referer").endswith(".example/")
    assert entry == {
        "app": "shop",
        "host": "shop.example.com",
        "request_id": seen["x-request-id"],
        "client": "127.0.0.2",
        "method": "GET",
        "uri": "/json?a=%22&b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "release": "r1",
        "slot": "green",
        "user_agent": agent,
    }


def test_a_request_of_any_length_is_logged(front: Front) -> None:
    # What a client controls takes six times its room in JSON, and a datagram holds 208 kB.
    long, longest = b"\x01" * 16_000, b'"' * 15_000
    answer = front.say(
        b"GET /long?%s HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: %s\r\nReferer: %s\r\n\r\n"
        % (longest, long, long)
    )
    entry = front.journal.entry(str(answer.headers["X-Request-ID"]))
    assert entry["uri"] == f"/long?{longest.decode()}"
    assert entry["user_agent"] == entry["referer"] == "\x01" * 2000


def test_errors_and_files_are_logged_as_well(front: Front) -> None:
    front.ask("/logged-down", host="down-api.example.com")
    entry = front.journal.entry("/logged-down")
    assert (entry["app"], entry["status"], entry["release"]) == ("down-api", 502, "")
    assert "," in entry["upstream_connect_time"]
    front.say(b"GET /logged-bad HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: -1\r\n\r\n")
    entry = front.journal.entry("/logged-bad")
    assert (entry["app"], entry["status"], entry["upstream_response_time"]) == ("shop", 400, "")
    front.ask("/static/logged.css")
    assert front.journal.entry("/static/logged.css")["status"] == 404
    front.ask_plain("/logged-plain", "shop.example.com")
    assert front.journal.entry("/logged-plain")["status"] == 308


def test_nginx_serves_without_the_journal_and_finds_it_again(tmp_path: Path) -> None:
    front = Front(tmp_path, render(DOWN))
    front.certify(DOWN)
    assert front.judge() == ""
    with front.running(journal=False):
        assert front.ask("/lost", host="down.example.com").status == 502
        journal = Journal(tmp_path / "dev-log")
        front.ask("/first", host="down.example.com")
        assert journal.entry("/first")["status"] == 502
        # A socket that is made anew costs each worker the line by which it notices.
        journal.close()
        journal = Journal(tmp_path / "dev-log")
        for _ in range(100):
            assert front.ask("/again", host="down.example.com").status == 502
        assert journal.entry("/again")
        assert not [line for line in journal.lines if "/lost" in line]
        journal.close()


def test_nginx_serves_while_the_journal_hears_nothing(tmp_path: Path) -> None:
    front = Front(tmp_path, render(DOWN))
    front.certify(DOWN)
    more_than_wait = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 5
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, front.running(journal=False):
        journal.bind(str(tmp_path / "dev-log"))
        for _ in range(more_than_wait):
            assert front.ask("/first", host="down.example.com").status == 502
        heard = 0
        with contextlib.suppress(BlockingIOError):
            while b"/first" in journal.recv(65536, socket.MSG_DONTWAIT):
                heard += 1
        assert 0 < heard < more_than_wait
        front.ask("/again", host="down.example.com")
        journal.settimeout(5)
        assert b"/again" in journal.recv(65536)


def test_a_client_says_nothing_of_itself_that_is_believed(front: Front) -> None:
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "6.6.6.6",
        "X-Request-ID": "evil",
        "Forwarded": "for=6.6.6.6",
        "Proxy": "evil",
    }
    for path in ("/", "/ws", "/.slipway/ready"):
        seen = front.ask(path, lies).seen()
        assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
        assert (seen["host"], seen["x-forwarded-host"]) == ("shop.example.com", "shop.example.com")
        assert seen["x-forwarded-proto"] == "https"
        assert re.fullmatch("[0-9a-f]{32}", seen["x-request-id"])
        assert not {"forwarded", "proxy", "x-forwarded-port", "x-forwarded-prefix", "upgrade"} & set(seen)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.1.2.3, 2001:db8::1", "203.0.113.9"),
        ("2001:db9::7", "2001:db9::7"),
        ("nonsense", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_says_who_the_client_is(front: Front, forwarded: str, client: str) -> None:
    lies = {"X-Real-IP": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    seen = front.ask("/", {"X-Forwarded-For": forwarded, **lies}, host="behind.example.com").seen()
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == client
    assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("https", "behind.example.com")


def test_others_are_not_believed_who_the_client_is(front: Front) -> None:
    for host, source in {"behind.example.com": "127.0.0.2", "shop.example.com": "127.0.0.1"}.items():
        seen = front.ask("/", {"X-Forwarded-For": "203.0.113.9"}, host=host, source=source).seen()
        assert seen["x-forwarded-for"] == seen["x-real-ip"] == source


def post(*headers: str, body: str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop.example.com\r\n\r\n") -> bytes:
    """A POST with these headers, whose body holds another request."""
    return "\r\n".join(["POST /once HTTP/1.1", "Host: shop.example.com", *headers, "", body]).encode()


@pytest.mark.parametrize(
    "request_",
    [
        post("Content-Length: 5", "Transfer-Encoding: chunked"),
        post("Transfer-Encoding: chunked", "Content-Length: 5"),
        post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        post("Transfer-Encoding: identity, chunked"),
        post("Transfer-Encoding: xchunked"),
        post("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        post("Transfer-Encoding : chunked"),
        post("Content-Length: 5", "Content-Length: 5"),
        post("Content-Length: 5", "Content-Length: 6"),
        post("Content-Length: +5"),
        post("Content-Length: 5,5"),
        post("Content-Length: 0x5"),
        post("X: a\0b"),
        post("Host: evil.example"),
        post("Transfer-Encoding: chunked", body="-1\r\n\r\n"),
        post("Transfer-Encoding: chunked", body="5;\n\nhello0\r\n\r\n"),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(front: Front, request_: bytes) -> None:
    answer = front.say(request_)
    assert answer.status in (400, 501)
    for name in DEFAULT_HEADERS - {"Permissions-Policy"}:
        assert len(answer.headers.get_all(name, [])) == 1, name


def test_a_body_reaches_the_app_with_one_length(front: Front) -> None:
    chunks = "5\r\nhello\r\n6; x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
    seen = front.say(post("Transfer-Encoding: chunked", "TE: trailers", "Expect: 100-continue", body=chunks)).seen()
    assert seen["content-length"] == "11"
    assert not {"transfer-encoding", "te", "expect", "x-trailer", "connection", "keep-alive"} & set(seen)


@pytest.mark.parametrize(
    ("line", "host", "sees"),
    [
        ("GET https://shop.example.com/x HTTP/1.1", "evil.example", "shop.example.com"),
        ("GET https://shop.example.com:1/x HTTP/1.1", "evil.example:2", "shop.example.com"),
        ("GET https://SHOP.example.com/x HTTP/1.1", "shop.example.com", "shop.example.com"),
        ("GET /x HTTP/1.1", "shop.example.com:1", "shop.example.com"),
        ("GET /x HTTP/1.1", "shop.example.com.", "shop.example.com"),
        ("GET https://evil.example/x HTTP/1.1", "shop.example.com", None),
        ("GET https://evil.example:shop.example.com/x HTTP/1.1", "shop.example.com", None),
        ("GET /x HTTP/1.1", "shop.example.com@evil.example", None),
        ("GET /x HTTP/1.1", "evil.example/shop.example.com", None),
        ("GET @shop.example.com/x HTTP/1.1", "shop.example.com", None),
    ],
)
def test_the_app_sees_a_name_of_its_own_and_no_other(front: Front, line: str, host: str, sees: str | None) -> None:
    answer = front.say(f"{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    if sees is None:
        assert answer.status in (400, 421)
    else:
        seen = answer.seen()
        assert (seen["path"], seen["host"], seen["x-forwarded-host"]) == ("/x", sees, sees)


def test_names_that_apps_mix_up_are_dropped(tmp_path: Path) -> None:
    front = Front(tmp_path, render(SITE))
    (tmp_path / "conf.d" / "mine.conf").write_text("underscores_in_headers on; ignore_invalid_headers off;")
    front.certify(SITE)
    front.release("green", LIVE, "live")
    names = ["X_Forwarded_For", "X_Real_IP", "Content_Length", "Host_", "X.Y"]
    with Server(str(tmp_path / "green.sock"), App) as app:
        threading.Thread(target=app.serve_forever, daemon=True).start()
        with front.running():
            seen = front.ask("/", {"X-Kept": "1", **dict.fromkeys(names, "6.6.6.6")}).seen()
        app.shutdown()
    assert seen["x-kept"] == "1"
    assert "6.6.6.6" not in seen.values()


def test_connections_to_the_app_are_kept(front: Front) -> None:
    assert "connection" not in front.ask("/").seen()
    assert front.ask("/.slipway/ready").seen()["connection"] == "close"


def test_the_readiness_of_the_live_release_is_shown_to_this_host(front: Front) -> None:
    answer = front.ask("/.slipway/ready")
    assert answer.seen()["path"] == "/ready"
    assert answer.headers["X-Slipway-Release"] == "r1"


@pytest.mark.parametrize(
    ("path", "upgraded"), [("/ws", True), ("/ws/room", True), ("/wsx", False), ("/", False), ("/static/ws", False)]
)
def test_only_websocket_paths_are_upgraded(front: Front, path: str, upgraded: bool) -> None:
    with front.connect("shop.example.com") as connection:
        connection.sendall(UPGRADE % path.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ") is upgraded


def test_nothing_but_a_websocket_is_upgraded(front: Front) -> None:
    assert "upgrade" not in front.ask("/ws", {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}).seen()


def test_a_large_body_is_refused(front: Front) -> None:
    assert front.ask("/", body=b"x" * 1024).status == 200
    assert front.ask("/", body=b"x" * 1025).status == 413


def test_http_goes_to_https_with_path_and_query(front: Front) -> None:
    answer = front.ask_plain("/a%20b?c=d", "shop.example.com")
    assert (answer.status, answer.headers["Location"]) == (308, "https://shop.example.com/a%20b?c=d")


@pytest.mark.parametrize("host", ["www.moved.example.com", "eu.old.example.com"])
def test_other_domains_go_to_the_first_in_one_step(front: Front, host: str) -> None:
    plain, secure = front.ask_plain("/a%20b?c=d", host), front.ask("/a%20b?c=d", host=host, body=b"x")
    for answer in (plain, secure):
        assert (answer.status, answer.headers["Location"]) == (308, "https://moved.example.com/a%20b?c=d")
    assert all(len(secure.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)
    assert front.ask("/b", host="moved.example.com").status == 200
    # The others of an app that is not canonical are as good as the first.
    assert front.ask_plain("/", "eu.shop.example.com").headers["Location"] == "https://eu.shop.example.com/"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/", "https://moved.example.com/start"),
        ("/?a=b", "https://moved.example.com/start?a=b"),
        ("/a.html", "https://moved.example.com/new"),
        ("/a.html?b=c&d=%0d%0aX-Evil:%201", "https://moved.example.com/new?b=c&d=%0d%0aX-Evil:%201"),
        ("/shop/", "https://moved.example.com/store/"),
        ("/shop/a%20b/%0d%0aX-Evil:1?c=d", "https://moved.example.com/store/a%20b/%0d%0aX-Evil:1?c=d"),
        ("/shop/old/x", "https://old.example.com:8443/x/x"),
        ("/shop/sale", "https://sale.example.com/"),
        ("/shop/sales", "https://moved.example.com/store/sales"),
    ],
)
def test_a_path_that_has_moved_leads_on(front: Front, path: str, location: str) -> None:
    plain, secure = front.ask_plain(path, "moved.example.com"), front.ask(path, host="moved.example.com", body=b"x")
    for answer in (plain, secure):
        assert (answer.status, answer.headers["Location"]) == (308, location)
        assert answer.headers["X-Evil"] is None
    assert all(len(secure.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)


@pytest.mark.parametrize("path", ["/axhtml", "/a.html/", "/shop", "/start", "/.slipway/ready", "/ws"])
def test_what_has_not_moved_stays(front: Front, path: str) -> None:
    assert front.ask(path, host="moved.example.com").status == 200


def test_redirects_name_the_public_port() -> None:
    files = render({**SITE, "redirects": {"/a": "/b"}}, {**MOVED, "redirects": {"/a": "/b"}}, nginx_public_port=8443)
    assert '"https://$host:8443/b$slipway_rest"' in files["maps/shop.conf"]
    assert '"https://moved.example.com:8443/b$slipway_rest"' in files["maps/moved.conf"]


PRIVATE = (
    "/metrics",
    "/metrics/",
    "/metrics/x?y",
    "//metrics",
    "/./metrics",
    "/x/../metrics",
    "/%6detrics",
    "/metrics%2fx",
)


@pytest.mark.parametrize("path", [*PRIVATE, "/ready", "/%2fready", "/metrics?/", "/.slipway/ready"])
def test_private_paths_are_not_there_for_the_public(front: Front, path: str) -> None:
    answer = front.ask(path, source="127.0.0.2")
    assert answer.status == 404
    for name in DEFAULT_HEADERS - {"Permissions-Policy"}:
        assert len(answer.headers.get_all(name, [])) == 1, name
    assert front.ask(path).status == 200


@pytest.mark.parametrize("path", ["/metricsx", "/ready2", "/x/metrics", "/x%20/metrics", "/1%20/metrics", "/Ready"])
def test_other_paths_are_there_for_everybody(front: Front, path: str) -> None:
    assert front.ask(path, source="127.0.0.2").status == 200


def test_private_paths_can_be_chosen_and_shown_to_some(front: Front) -> None:
    def status(path: str, client: str) -> int:
        return front.ask(path, {"X-Forwarded-For": client}, host="behind.example.com").status

    for path in ("/internal", "/internal/x", "/a.b"):
        assert [status(path, client) for client in ("198.51.100.1", "203.0.113.7", "")] == [404, 200, 200]
    for path in ("/metrics", "/ready", "/axb", "/internals"):
        assert status(path, "198.51.100.1") == 200
    # Whoever is behind a proxy on this host is not this host, whatever it sends.
    assert front.ask("/.slipway/ready", {"X-Forwarded-For": "198.51.100.1"}, host="behind.example.com").status == 404
    assert front.ask("/.slipway/ready", host="behind.example.com").status == 200
    assert (
        front.ask("/a.b", {"X-Forwarded-For": "127.0.0.1"}, host="behind.example.com", source="127.0.0.2").status == 404
    )


def test_who_watches_an_app_sees_it_during_maintenance(front: Front) -> None:
    with maintenance(front):
        assert [front.ask("/metrics").status, front.ask("/").status] == [200, 503]
        assert [front.ask(path, source="127.0.0.2").status for path in ("/metrics", "/")] == [404, 503]
        assert [front.ask(path, source="127.0.0.9").status for path in ("/metrics", "/")] == [404, 200]


def test_everything_can_be_private(tmp_path: Path) -> None:
    site = {**SITE, "ready_path": "/", "private_paths": ["/"], "private_allow": ["127.0.0.3"]}
    front = Front(tmp_path, render(site))
    front.certify(site)
    front.release("green", LIVE, "live")
    with front.running():
        for path in ("/", "/x", "/static/app.css"):
            assert front.ask(path, source="127.0.0.2").status == 404
            assert front.ask(path, source="127.0.0.3").status in (200, 502)


def test_the_front_page_is_not_private_because_readiness_is_asked_there() -> None:
    maps = render({**SITE, "ready_path": "/"})["maps/shop.conf"]
    assert maps.count(" hidden;") == 1 and "/metrics(/|$)" in maps
    assert " hidden;" not in render({**SITE, "private_paths": []})["maps/shop.conf"]


def test_the_public_port_is_in_redirects_and_host() -> None:
    files = render(SITE, nginx_public_port=8443)
    assert "return 308 https://$host:8443$request_uri;" in files["sites/shop.conf"]
    assert "proxy_set_header Host $host:8443;" in files["snippets/proxy.conf"]
    assert "proxy_set_header X-Forwarded-Host $host:8443;" in files["snippets/proxy.conf"]


def test_acme_challenges_are_answered_over_http(front: Front) -> None:
    answer = front.ask_plain("/.well-known/acme-challenge/token", "shop.example.com")
    assert (answer.status, answer.body) == (200, b"proof")
    assert front.ask_plain("/.well-known/acme-challenge/none", "shop.example.com").status == 404


def test_an_unknown_host_gets_no_answer(front: Front) -> None:
    with pytest.raises(ConnectionResetError):
        front.ask_plain("/", "other.example.com")
    with pytest.raises(ssl.SSLError):
        front.connect("other.example.com")


def test_a_foreign_host_on_a_known_name_is_misdirected(front: Front) -> None:
    answer = front.ask("/", host="other.example.com", name="shop.example.com")
    assert answer.status == 421
    # What browsers would keep for a name that is not ours stays away.
    headers = DEFAULT_HEADERS - {"Strict-Transport-Security"}
    assert {name: len(answer.headers.get_all(name, [])) for name in headers} == dict.fromkeys(headers, 1)
    assert answer.headers["Strict-Transport-Security"] is None


def test_wildcard_domains_are_answered(front: Front) -> None:
    assert front.ask("/", host="eu.shop.example.com").seen()["host"] == "eu.shop.example.com"


def test_http2_is_spoken(front: Front) -> None:
    with front.connect("shop.example.com", "h2") as connection:
        assert connection.selected_alpn_protocol() == "h2"


def shake_hands(front: Front, version: ssl.TLSVersion, ciphers: str = "") -> bool:
    """Whether nginx speaks this version with one of these ciphers, and resumes a session of it."""
    context = front.context()
    if ciphers:
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None
    for resumed in (False, True):
        try:
            with (
                socket.create_connection(("127.0.0.1", front.https), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="shop.example.com", session=session) as connection,
            ):
                # The session of TLS 1.3 comes with the answer.
                connection.sendall(b"GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n")
                while connection.recv(4096):
                    pass
                assert connection.session_reused is resumed
                session = connection.session
        except (ssl.SSLError, ConnectionResetError):
            assert not resumed
            return False
    return True


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.parametrize(
    ("profile", "version", "ciphers", "spoken"),
    [
        ("intermediate", ssl.TLSVersion.TLSv1_3, "", True),
        ("intermediate", ssl.TLSVersion.TLSv1_2, "", True),
        ("intermediate", ssl.TLSVersion.TLSv1_2, "CHACHA20", True),
        ("intermediate", ssl.TLSVersion.TLSv1_2, "ECDHE+SHA256:!AESGCM:!CHACHA20", False),
        ("intermediate", ssl.TLSVersion.TLSv1_2, "DHE", False),
        ("intermediate", ssl.TLSVersion.TLSv1_2, "kRSA", False),
        ("intermediate", ssl.TLSVersion.TLSv1_1, "ALL", False),
        ("modern", ssl.TLSVersion.TLSv1_3, "", True),
        ("modern", ssl.TLSVersion.TLSv1_2, "", False),
        ("modern", ssl.TLSVersion.TLSv1_1, "ALL", False),
    ],
)
def test_tls_is_as_the_profile_says(
    tls_fronts: Mapping[str, Front], profile: str, version: ssl.TLSVersion, ciphers: str, spoken: bool
) -> None:
    with tls_fronts[profile].running() as front:
        assert shake_hands(front, version, ciphers) is spoken


@pytest.fixture(scope="module")
def tls_fronts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Front]:
    fronts = {}
    for profile in ("intermediate", "modern"):
        fronts[profile] = Front(tmp_path_factory.mktemp(profile), render(SITE, nginx_tls_profile=profile))
        fronts[profile].certify(SITE)
    return fronts


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_each_profile_prefers_the_hybrid_where_there_is_one(release: str, profile: str) -> None:
    tls = render(SITE, release=release, nginx_tls_profile=profile)["snippets/tls.conf"]
    curves = "X25519:prime256v1:secp384r1"
    assert f"ssl_ecdh_curve {'X25519MLKEM768:' if release == 'trixie' else ''}{curves};" in tls
    assert ("ssl_ciphers " in tls) is (profile == "intermediate")


def test_the_server_does_not_say_its_version(front: Front) -> None:
    assert front.ask("/").headers["Server"] == "nginx"


# What nginx answers by itself.


@contextlib.contextmanager
def maintenance(front: Front, app: str = "shop") -> Iterator[None]:
    file = front.path / "maintenance" / app
    file.touch()
    try:
        yield
    finally:
        file.unlink()


@pytest.mark.parametrize("path", ["/", "/ws", "/static/app.css", "/static/none.css", "/any.css"])
@pytest.mark.parametrize("body", [b"", b"x" * 900], ids=["get", "post"])
def test_in_maintenance_everybody_gets_a_page_at_once(front: Front, path: str, body: bytes) -> None:
    before = front.ask(path, body=body).status
    with maintenance(front):
        answer = front.ask(path, body=body)
        assert answer.status == 503
        assert b"<h1>Under maintenance</h1>" in answer.body
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Retry-After"] == "120"
        assert answer.headers["Cache-Control"] == "no-store"
        for name in DEFAULT_HEADERS - {"Permissions-Policy"}:
            assert len(answer.headers.get_all(name, [])) == 1, name
        assert front.ask("/", host="blog.example.com").status == 200
    assert front.ask(path, body=body).status == before


def test_maintenance_lets_those_in_who_are_named(front: Front) -> None:
    with maintenance(front):
        for source, status in {"127.0.0.9": 200, "127.1.2.3": 200, "127.0.0.8": 503, "127.0.0.1": 503}.items():
            assert front.ask("/", source=source).status == status


def test_a_deploy_and_a_certificate_go_on_during_maintenance(front: Front) -> None:
    with maintenance(front):
        assert front.ask("/.slipway/ready").seen()["path"] == "/ready"
        assert front.ask_plain("/.well-known/acme-challenge/token", "shop.example.com").body == b"proof"


def test_maintenance_leaves_an_open_websocket_alone(front: Front) -> None:
    with front.connect("shop.example.com") as connection:
        connection.sendall(UPGRADE % b"/ws")
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        with maintenance(front):
            connection.sendall(b"still there?")
            assert connection.recv(4096) == b"still there?"
            with front.connect("shop.example.com") as another:
                another.sendall(UPGRADE % b"/ws")
                assert another.recv(4096).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("options", "check", "changed"),
    [
        ("app=shop state=on", True, True),
        ("app=shop state=on", False, True),
        ("app=blog state=off", False, False),
        ("app=shoop state=on", False, 'app is "shoop" and state is "on": app is one of blog, shop'),
        ("app=../shop state=on", False, 'app is "../shop"'),
        ("app=shop state=aus", False, "state is on or off, such as -e app=shop -e state=on"),
    ],
)
def test_the_playbook_for_maintenance(
    playbook: Callable[..., Any], tmp_path: Path, options: str, check: bool, changed: bool | str
) -> None:
    place = tmp_path / "maintenance"
    place.mkdir()
    text = (ROLE.parents[1] / "playbooks" / "maintenance.yml").read_text()
    tasks = yaml.safe_load(text.replace("/etc/nginx/slipway/maintenance", str(place)))[0]["tasks"]
    for part in ("owner", "group"):  # whoever runs this test
        del tasks[-1]["ansible.builtin.file"][part]
    hosts = {"one": {"slipway_apps": {"shop": {}, "blog": {}}}}

    def run() -> dict[str, Any]:
        result: dict[str, Any] = playbook(tmp_path, tasks, hosts, "-e", options, *(["--check"] if check else []))
        return result["one"][-1]

    done = run()
    if isinstance(changed, str):
        assert done["failed"] and changed in done["msg"]
    else:
        assert done["changed"] is changed
        assert run()["changed"] is (changed and check)
    assert [file.name for file in place.iterdir()] == (["shop"] if changed is True and not check else [])


def statuses(front: Front, path: str, count: int, source: str) -> list[int]:
    return [front.ask(path, host="limited.example.com", source=source).status for _ in range(count)]


def test_a_client_that_asks_too_much_is_told(front: Front) -> None:
    assert statuses(front, "/", 21, "127.0.1.1") == [200] * 20 + [429]
    answer = front.ask("/", host="limited.example.com", source="127.0.1.1", body=b"x")
    assert answer.status == 429 and b"<h1>Too many requests</h1>" in answer.body
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)
    # Others, static files and the deploy's question are not affected.
    assert statuses(front, "/", 1, "127.0.1.2") == [200]
    assert statuses(front, "/static/app.css", 20, "127.0.1.1") == [200] * 20
    assert statuses(front, "/.slipway/ready", 12, "127.0.0.1") == [200] * 12


def test_paths_can_have_stricter_limits(front: Front) -> None:
    assert statuses(front, "/login", 2, "127.0.1.3") == [200, 200]
    for path in ("/login", "/login/", "/login/x?y", "//login", "/%6cogin", "/x/../login"):
        assert statuses(front, path, 1, "127.0.1.3") == [429]
    assert statuses(front, "/loginx", 1, "127.0.1.3") == [200]
    assert statuses(front, "/a.b", 5, "127.0.1.3") == [200] * 4 + [429]
    assert statuses(front, "/axb", 1, "127.0.1.3") == [200]


def test_limits_change_by_a_reload(tmp_path: Path) -> None:
    def limits(*paths: str, rate: str) -> dict[str, Any]:
        return {**SITE, "limits": {"requests": rate, "connections": 9, "paths": dict.fromkeys(paths, rate)}}

    front = Front(tmp_path, render(limits("/b", "/c", rate="1r/s")))
    front.certify(SITE)
    with front.running():
        # nginx refuses to give a zone another key, which its own test does not foresee.
        for name, content in render(limits("/a", "/b", rate="1r/m")).items():
            if name.startswith(("maps/", "sites/")):
                for place, here in front.places.items():
                    content = content.replace(place, here)
                (tmp_path / "current" / name).write_text(content)
        os.kill(int((tmp_path / "nginx.pid").read_text()), signal.SIGHUP)
        for _ in range(50):
            if [front.ask("/a").status for _ in range(3)] == [429] * 3:
                break
            time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "log" / "error.log").read_text())
        assert "emerg" not in (tmp_path / "log" / "error.log").read_text()


def test_a_client_has_so_many_connections_at_once(front: Front) -> None:
    def is_upgraded(connection: ssl.SSLSocket) -> bool:
        connection.sendall(UPGRADE.replace(b"shop", b"limited") % b"/ws")
        return connection.recv(4096).startswith(b"HTTP/1.1 101 ")

    def connect() -> ssl.SSLSocket:
        return front.connect("limited.example.com", source="127.0.1.4")

    with connect() as one, connect() as two, connect() as three:
        assert [is_upgraded(one), is_upgraded(two), is_upgraded(three)] == [True, True, False]
        assert statuses(front, "/", 1, "127.0.1.4") == [429]
        assert statuses(front, "/", 1, "127.0.1.5") == [200]
    for _ in range(50):
        if statuses(front, "/.slipway/none", 1, "127.0.1.4") == [200]:
            return
        time.sleep(0.1)
    pytest.fail("a closed connection still counts")


@pytest.mark.parametrize("path", ["/", "/style.css", "/data.json"])
@pytest.mark.parametrize("body", [b"", b"x"], ids=["get", "post"])
def test_an_app_that_does_not_answer_is_excused(front: Front, path: str, body: bytes) -> None:
    answer = front.ask(path, host="down.example.com", body=body)
    assert answer.status == 502
    assert b"<h1>Bad gateway</h1>" in answer.body
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Retry-After"] == "10"
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)
    answer = front.ask(path, host="down-api.example.com", body=body)
    assert answer.status == json.loads(answer.body)["status"] == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)


def test_a_gateway_timeout_is_excused_too(tmp_path: Path) -> None:
    files = render({**SITE, "websocket_paths": [], "request_seconds": 1})
    front = Front(tmp_path, files)
    front.certify(SITE)
    front.release("green", {}, "live")
    with socket.socket(socket.AF_UNIX) as app:
        app.bind(str(tmp_path / "green.sock"))
        app.listen()
        with front.running():
            answer = front.ask("/")
        app.settimeout(0)
        app.accept()
        # It is not asked twice.
        with pytest.raises(BlockingIOError):
            app.accept()
    assert answer.status == 504 and b"<h1>Gateway timeout</h1>" in answer.body
    assert answer.headers["Retry-After"] is None
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)


@pytest.mark.parametrize(("body", "times"), [(b"", 2), (b"x", 1)], ids=["get", "post"])
def test_what_may_be_asked_again_is_and_a_post_never(tmp_path: Path, body: bytes, times: int) -> None:
    front = Front(tmp_path, render(SITE))
    front.certify(SITE)
    front.release("green", {}, "live")
    with socket.socket(socket.AF_UNIX) as app, ThreadPoolExecutor() as client, front.running():
        app.bind(str(tmp_path / "green.sock"))
        app.listen()
        asking = client.submit(front.ask, "/", body=body)
        # A worker that is killed has read the request, and answers nothing.
        for _ in range(times):
            connection, _ = app.accept()
            connection.recv(65536)
            connection.close()
        assert asking.result(20).status == 502
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


def test_what_the_app_says_of_its_errors_is_passed_on(front: Front) -> None:
    answer = front.ask("/broken")
    assert answer.status == 503 and answer.seen()["path"] == "/broken"
    assert answer.headers["Retry-After"] is None


def test_the_policy_of_these_pages_lets_their_style_through(front: Front) -> None:
    answer = front.ask("/", host="down.example.com")
    (style,) = re.findall(rb"<style>(.*?)</style>", answer.body)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{digest}'"
    )


# Directives of the user's own.


def test_own_directives_are_in_force_where_they_belong(front: Front) -> None:
    answer = front.ask("/", {"Accept-Language": "de"}, host="own.example.com")
    assert answer.seen()["x-language"] == '{{ " }} de'
    assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS)
    assert front.ask("/x", host="own.example.com").seen()["x-language"] == "en"
    assert "x-language" not in front.ask("/ws", host="own.example.com").seen()
    assert front.ask("/robots.txt", host="own.example.com").status == 404
    with maintenance(front, "own"):
        answer = front.ask("/", host="own.example.com")
        assert (answer.status, answer.body) == (503, b"closed")
    # Nothing of it is in another app's site.
    assert "x-language" not in front.ask("/").seen()


@pytest.mark.parametrize(
    ("point", "text", "complaint"),
    [
        ("http", "map $a $b {\n  default 1;\n}\nno_such_thing on;", 'unknown directive "no_such_thing" in {}:4'),
        ("server", "\nlisten 80", 'unexpected end of file, expecting ";" or "}}" in {}:'),
        ("server", "}\nserver { listen 81;", 'unexpected "}}" in {}:1'),
        ("location", "proxy_pass http://elsewhere;\n", '"proxy_pass" directive is duplicate in {}:1'),
        ("server", "\nclient_max_body_size 5m;\n", '"client_max_body_size" directive is duplicate in {}:2'),
        ("location", "# a comment that has\nno_end", 'unexpected end of file, expecting ";" or "}}" in {}:'),
    ],
)
def test_own_directives_that_nginx_does_not_take_change_nothing(
    tmp_path: Path, me: dict[str, str], point: str, text: str, complaint: str
) -> None:
    front = Front(tmp_path, render(SITE, OWN))
    front.certify(SITE, OWN)

    def converge(site: dict[str, Any]) -> dict[str, Any]:
        places = {**front.places, "/etc/nginx/slipway/current": f"{tmp_path}/store/current"}
        files = []
        for name, content in render(SITE, site).items():
            for place, here in places.items():
                content = content.replace(place, here)
            if not name.startswith("/"):
                files.append({"path": name, "content": content, "mode": "0644", "state": "present", **me})
        validate = f"{front.command[0]} -t -q -c {{root}}/nginx.conf -g 'pid /dev/null;'"
        return config_set.converge(
            {"store": str(tmp_path / "store"), "files": files, "validate": validate}, check=False
        )

    assert converge(OWN)["changed"]
    current = (tmp_path / "store" / "current").readlink()
    with pytest.raises(config_set.Refused) as refused:
        converge({**OWN, "nginx": {**OWN["nginx"], point: text}})
    # The file is called like the variable.
    name = f"slipway_apps.own.nginx.{point}"
    said = re.sub(rf"in /\S*/{name}", f"in {name}", str(refused.value))
    assert complaint.format(name) in said
    assert (tmp_path / "store" / "current").readlink() == current
    assert not converge(OWN)["changed"]


# Static files.


def test_static_files_come_from_the_live_release(front: Front) -> None:
    answer = front.ask("/static/app.css")
    assert (answer.status, answer.body) == (200, b"live")
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_page_of_the_release_before_finds_its_assets(front: Front) -> None:
    answer = front.ask("/static/app.0d4f8a7c.css")
    assert (answer.status, answer.body) == (200, b"previous")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert len(answer.headers.get_all("X-Frame-Options", [])) == 1


@pytest.mark.parametrize(
    "path",
    [
        *("/static/.env", "/static/.git/config", "/static/%2eenv", "/static/.old"),
        *("/static/outside.txt", "/static/inside.css"),
        *("/static/../settings.py", "/static/..%2fsettings.py", "/static/js/..%2f..%2fsettings.py"),
        *("/static../settings.py", "/static/js", "/static/js/"),
        *("/static/%2e%2e/settings.py", "/static/%2E%2E%2Fsettings.py", "/static/js/%2e%2e/%2e%2e/settings.py"),
        *("/static/..%5csettings.py", "/static/%252e%252e/settings.py", "/static//..//settings.py", "/static/./.env"),
        *("/static/parent/settings.py", "/static/parent", "/static/app.css.gz", "/static/app.css.br"),
        *(
            "/static/.env%00.css",
            "/static/app.css%00",
            "/static/.env?x.css",
            "/static/js/../.env",
            "/static/%2f../.env",
        ),
    ],
)
def test_nothing_else_is_served_from_the_disk(front: Front, path: str) -> None:
    for encoding in ("gzip", "br", "identity"):
        answer = front.ask(path, {"Accept-Encoding": encoding})
        assert b"secret" not in answer.body
        assert answer.status in {301, 400, 403, 404} or answer.seen()["path"] == path


def test_static_text_is_compressed_and_answers_of_the_app_are_not(front: Front) -> None:
    assert front.ask("/static/js/app.js", {"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"
    assert front.ask("/" + "x" * 3000, {"Accept-Encoding": "gzip"}).headers["Content-Encoding"] is None


def test_what_the_build_has_compressed_is_sent_as_it_is(front: Front) -> None:
    for accepted, (encoding, body) in {
        "gzip": ("gzip", b"gzip"),
        "gzip, deflate, br": ("br", b"brotli"),
        "identity": (None, b"plain"),
    }.items():
        answer = front.ask("/static/packed.css", {"Accept-Encoding": accepted})
        assert (answer.status, answer.headers["Content-Encoding"], answer.body) == (200, encoding, body)
        assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert all(len(answer.headers.get_all(name, [])) == 1 for name in DEFAULT_HEADERS - {"Permissions-Policy"})


def test_compressed_links_lead_nowhere(front: Front) -> None:
    for encoding in ("gzip", "br"):
        answer = front.ask("/static/app.css", {"Accept-Encoding": encoding})
        assert (answer.status, answer.body) in {(200, b"live"), (403, answer.body)} and b"secret" not in answer.body


def test_text_is_compressed_by_brotli_where_a_client_takes_it(front: Front) -> None:
    answer = front.ask("/static/js/app.js", {"Accept-Encoding": "gzip, br"})
    assert answer.headers["Content-Encoding"] == "br" and len(answer.body) < 200
    assert front.ask("/" + "x" * 3000, {"Accept-Encoding": "br"}).headers["Content-Encoding"] is None


@pytest.mark.parametrize(
    ("name", "for_ever"),
    [
        ("base.5af66c1b1797.css", True),
        ("main.0a1b2c3d4e5f6a7b8c9d.chunk.js", True),
        ("index-BqG7x2Lr.js", True),
        ("app.css", False),
        ("my-document.pdf", False),
        ("report-20240101.csv", False),
        ("jquery-3.7.1.min.js", False),
        ("decade-defaced.css", False),
        ("0d4f8a7c", False),
        ("a.0d4f8a7c/app.css", False),
    ],
)
def test_only_names_with_a_hash_are_kept_for_ever(front: Front, name: str, for_ever: bool) -> None:
    file = front.path / "srv/shop/releases/green/src/shop/static" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    assert ("immutable" in front.ask(f"/static/{name}").headers["Cache-Control"]) is for_ever


METRICS = [f"/.slipway/metrics/{name}" for name in ("node", "nginx", "apps/shop")]


@pytest.mark.parametrize("path", [*METRICS, "/metrics"])
def test_prometheus_sees_what_is_measured_and_nobody_else_does(front: Front, path: str) -> None:
    # Nothing listens where the exporter of nginx would.
    assert front.ask(path, source=PROMETHEUS).status == (502 if path.endswith("nginx") else 200)
    if path != "/metrics":
        assert front.ask(path).status == 404, "not even the host itself, for apps are there, too"
    answer = front.ask(path, source="127.0.0.2")
    assert answer.status == 404
    assert len(answer.headers.get_all("X-Frame-Options", [])) == 1


def test_prometheus_may_know_a_host_by_any_name(front: Front) -> None:
    for host in ("192.0.2.1", "web1.example.com", "blog.example.com", "shop.example.com"):
        answer = front.ask(
            "/.slipway/metrics/apps/shop",
            {"Accept": "application/openmetrics-text", "X-Forwarded-For": "6.6.6.6", "Cookie": "x=y"},
            host=host,
            name="shop.example.com",
            source=PROMETHEUS,
        )
        seen = answer.seen()
        assert (seen["path"], seen["host"], seen["accept"]) == (
            "/metrics",
            "shop.example.com",
            "application/openmetrics-text",
        )
        assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (PROMETHEUS, "https")
        assert "cookie" not in seen
        assert not {"x-slipway-release", "x-slipway-slot"} & {name.lower() for name in answer.headers}
    # All else by such a name is as before.
    assert front.ask("/", host="192.0.2.1", name="shop.example.com", source=PROMETHEUS).status == 421


@pytest.mark.parametrize("path", METRICS)
def test_nobody_passes_for_prometheus_by_a_proxy(front: Front, path: str) -> None:
    # An app on this host that says it is a proxy, and a client who lies to one that is near Prometheus.
    for source, told in (("127.0.0.1", PROMETHEUS), (PROXY, f"{PROMETHEUS}, 198.51.100.9")):
        forwarded = {"X-Forwarded-For": told}
        assert front.ask("/internal/", forwarded, host="behind.example.com", source=source).status == 404
        for host in ("behind.example.com", "192.0.2.1"):
            assert front.ask(path, forwarded, host=host, name="behind.example.com", source=source).status == 404


def test_prometheus_is_answered_during_maintenance(front: Front) -> None:
    with maintenance(front):
        for path in ("/.slipway/metrics/node", "/.slipway/metrics/apps/shop", "/metrics"):
            assert front.ask(path, source=PROMETHEUS).status == 200
        assert front.ask("/", source=PROMETHEUS).status == 503


def test_nginx_tells_the_host_its_state(front: Front) -> None:
    answer = front.ask_plain("/.slipway/status", "127.0.0.1")
    assert answer.status == 200 and answer.body.startswith(b"Active connections: ")
    with pytest.raises(ConnectionError):
        front.ask_plain("/", "127.0.0.1")


def test_nothing_is_told_where_there_is_no_prometheus() -> None:
    files = render(SITE)
    assert "location" not in files["snippets/metrics.conf"]
    assert "stub_status" not in files["nginx.conf"]
