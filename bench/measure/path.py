"""The way of a request: each server as Slipway deploys it, and other ways from nginx to it, against the floor."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import websockets

from .figures import Answers, Bars, Spread, Table, count, per_request, segments, total
from .hosts import Client, Failed, Host, Run, play, source, tell

# The servers, each with the app of apps/ that it serves; the first is the default.
SERVERS = {
    "gunicorn": "asgi",
    "uvicorn": "asgi",
    "hypercorn": "asgi",
    "gunicorn-wsgi": "wsgi",
    "waitress": "wsgi",
}
DEFAULT = "gunicorn"
PACKAGES = ["gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "httptools", "hypercorn", "waitress"]
SMALL, DOWNLOAD, UPLOAD = "small JSON", "100 kB download", "100 kB upload"
STATIC, ECHO = "static file of 10 kB", "WebSocket echo"
PATHS = {SMALL: "/", DOWNLOAD: "/large", UPLOAD: "/upload", STATIC: "/static/page.css"}
ON_ITS_OWN, TRIVIAL = "nginx, which answers by itself", "nginx, to another nginx"
SOCKETS = 16
GROUPS = ("app", "nginx", "journal")
FIRST_PORT = 9101
# As Slipway has it where it keeps connections.
KEEPALIVE = ["keepalive 32;", "keepalive_timeout 300ms;", "keepalive_requests 1000;"]

# Run where a server's configuration lies: it keeps nginx's connections then, whatever it makes of them, and takes a TCP
# socket beside its Unix socket, which waitress would refuse.
KEEPING = """
sed -i 's/, ("Connection", "close")//' slipway_server.py
[ ! -f slipway_waitress.py ] || sed -i '/one.channel_class = Channel/s/Channel/HTTPChannel/
  /^TICK_SECONDS/a waitress.adjustments.Adjustments.check_sockets = lambda *_: None' slipway_waitress.py
"""
# The slot that is not live gets a TCP socket beside its own, and is changed in nothing else. A server that does not
# answer is stopped, for it might be started again and again while others are measured.
_BESIDE = """
unit=slipway-{app}@{slot}
for try in $(seq 60); do
  [ "$(systemctl show --property=ActiveState --value $unit.service)" != inactive ] || break
  sleep 0.5
done
mkdir -p /run/systemd/system/$unit.socket.d
printf '[Socket]\\nListenStream=127.0.0.1:{port}\\n' >/run/systemd/system/$unit.socket.d/tcp.conf
cd /etc/slipway/{app}/{slot}
{keeping}
systemctl daemon-reload
systemctl restart $unit.socket
systemctl start $unit.service
if ! python3 - /run/slipway/{app}-{slot}.sock; then
  systemctl stop $unit.socket $unit.service
  exit 1
fi
"""
# Prints what a server says of the connection, over its own socket.
_ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(30)
connection.connect(sys.argv[1])
connection.sendall(b"GET /ready HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print(connection.recv(65536).decode().lower())
"""
# What costs least: an nginx that says one thing.
_SAY = """return 200 '{"message": "here I am", "items": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]}';"""
TRIVIAL_NGINX = """
pid /run/bench/nginx.pid;
# Another user would take the directories over into which Slipway's nginx writes bodies.
user www-data;
worker_processes auto;
events {}
http {
    access_log off;
    default_type application/json;
    server {
        listen unix:/run/bench/trivial.sock;
        location / { SAY }
    }
}
""".replace("SAY", _SAY)
FLOOR = """
server {
    listen 443 ssl;
    server_name floor.bench.test;
    include /etc/nginx/slipway/current/snippets/server.conf;
    include /etc/nginx/slipway/current/snippets/tls.conf;
    include /etc/nginx/slipway/current/headers/DEFAULT.conf;
    ssl_certificate /etc/slipway/certificates/DEFAULT/fullchain.pem;
    ssl_certificate_key /etc/slipway/certificates/DEFAULT/privkey.pem;
    default_type application/json;
    location / { SAY }
}
""".replace("DEFAULT", DEFAULT).replace("SAY", _SAY)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Something that is measured in each round.

    Attributes:
        server: the server, or which floor it is.
        kind: what is asked for.
        transport: ``unix`` or ``tcp``, by which nginx reaches the server, or nothing.
        keepalive: whether nginx keeps its connections to the server.
        deployed: whether this is what Slipway makes.
        site: the name that is asked.
        unit: a pattern of the units that answer.
    """

    server: str
    kind: str
    transport: str
    keepalive: bool
    deployed: bool
    site: str
    unit: str

    @property
    def is_base(self) -> bool:
        """Whether the others are compared with it."""
        return (self.server, self.kind, self.deployed) == (DEFAULT, SMALL, True)


def variant(site: str, app: str, name: str, keepalive: bool, address: str) -> str:
    """A site like the one that Slipway has written for an app, under another name and to another upstream.

    Args:
        site: the text of that.
        app: the app.
        name: the name of the new one, a domain.
        keepalive: whether nginx keeps its connections to the upstream.
        address: where the upstream is, or "" for where it was.

    Returns:
        nginx's configuration, for the same ``http`` as the site itself.
    """
    upstream = f"bench_{name.partition('.')[0].replace('-', '_')}"
    before = re.search(rf"upstream slipway_{app} \{{(.*?)\n\}}\n", site, re.DOTALL)
    if not before:
        raise ValueError(f"the site of {app} has no upstream: {site}")
    servers = re.findall(r"^\s*(server .*;)$", before[1], re.MULTILINE)
    lines = [f"server {address} max_fails=0;"] if address else servers
    lines += KEEPALIVE if keepalive else []
    # What stands beside servers is there already.
    text = site[before.end() :]
    text = re.sub(r"(?m)^(\s*server_name) .*;$", rf"\1 {name};", text)
    text = text.replace(f"http://slipway_{app};", f"http://{upstream};")
    connection = '""' if keepalive else "close"
    text = re.sub(r'proxy_set_header Connection (""|close);', f"proxy_set_header Connection {connection};", text)
    return "\n    ".join([f"upstream {upstream} {{", *lines]) + "\n}\n" + text


def cells(deployed: Mapping[str, bool]) -> Iterator[Cell]:
    """All that is measured, given which servers Slipway keeps nginx's connections to."""
    for server, kept in deployed.items():
        unit = f"slipway-{server}@*.service"
        for transport in ("unix", "tcp"):
            for keepalive in (True, False):
                same = transport == "unix" and keepalive == kept
                name = server if same else f"{server}-{transport}-{'on' if keepalive else 'off'}"
                yield Cell(server, SMALL, transport, keepalive, same, f"{name}.bench.test", unit)
        kinds = [DOWNLOAD, UPLOAD]
        kinds += [ECHO] if SERVERS[server] == "asgi" else []
        kinds += [STATIC] if server == DEFAULT else []
        for kind in kinds:
            yield Cell(server, kind, "unix", kept, True, f"{server}.bench.test", unit)
    yield Cell(ON_ITS_OWN, SMALL, "", False, False, "floor.bench.test", "none")
    for keepalive in (True, False):
        name = f"trivial-{'on' if keepalive else 'off'}.bench.test"
        yield Cell(TRIVIAL, SMALL, "unix", keepalive, False, name, "bench-trivial.service")


# --- measuring


def measure(run: Run) -> dict[str, Any]:
    """Measure, and return each cell with its rounds."""
    for app in set(SERVERS.values()):
        source(app, 1)
    with run.hosts("slipway-bench-servers", "slipway-bench-client") as (host, client):
        tell("deploying each server")
        play("playbooks/site.yml", limit=[host.name])
        # Once more, so that the other slot has the same release.
        again = {app: {"environment": {"ROUND": "2"}} for app in SERVERS}
        play("playbooks/deploy.yml", limit=[host.name], variables={"slipway_app_overrides_bench": again})
        deployed = _sites(host)
        wanted = list(cells(deployed))
        asking = Client(client.name)
        asking.prepare(dict.fromkeys((cell.site for cell in wanted), host.address))
        return {
            "versions": host.versions("/srv/slipway/*/live/release/", PACKAGES),
            "cells": _rounds(run, host, asking, wanted),
        }


def _sites(host: Host) -> dict[str, bool]:
    """Make the sites beside Slipway's own, and return of which servers nginx keeps connections as they are deployed."""
    deployed, texts = {}, [FLOOR]
    for port, app in enumerate(SERVERS, FIRST_PORT):
        site = host.run(f"cat /etc/nginx/slipway/current/sites/{app}.conf")
        said = host.run(f"python3 - /srv/slipway/{app}/live/socket", _ASK)
        deployed[app] = "connection: close" not in said
        slot = "green" if "@blue" in host.live(app) else "blue"
        try:
            host.run(_BESIDE.format(app=app, slot=slot, port=port, keeping=KEEPING), _ASK)
        except Failed as error:
            # Its rows will say that nobody answers.
            tell(f"{app} does not start in its other slot: {error}")
        for cell in cells({app: deployed[app]}):
            if cell.server == app and cell.kind == SMALL and not cell.deployed:
                address = f"127.0.0.1:{port}" if cell.transport == "tcp" else f"unix:/run/slipway/{app}-{slot}.sock"
                texts.append(variant(site, app, cell.site, cell.keepalive, address))
            if app == DEFAULT and cell.server == TRIVIAL:
                texts.append(variant(site, app, cell.site, cell.keepalive, "unix:/run/bench/trivial.sock"))
    host.send("/run/bench/nginx.conf", TRIVIAL_NGINX)
    host.run("systemd-run --quiet --unit=bench-trivial nginx -c /run/bench/nginx.conf -g 'daemon off;'")
    host.send("/etc/nginx/conf.d/bench.conf", "\n".join(texts))
    host.run("nginx -t -q && systemctl reload nginx")
    return deployed


def _rounds(run: Run, host: Host, client: Client, wanted: list[Cell]) -> list[dict[str, Any]]:
    """Each cell with what it came to in each round, or with why it could not be measured."""
    address, seconds = host.address, run.pick(4, 1)
    certificates = {app: host.certificate(app) for app, kind in SERVERS.items() if kind == "asgi"}

    def load(cell: Cell, seconds: int) -> Callable[[], Answers]:
        if cell.kind == ECHO:
            certificate = certificates[cell.server]
            return lambda: asyncio.run(echo(address, cell.site, certificate, seconds))
        url = f"https://{cell.site}{PATHS[cell.kind]}"
        return lambda: client.wrk(url, seconds, cell.kind == UPLOAD)

    found: list[dict[str, Any]] = [{**dataclasses.asdict(cell), "problem": "", "rounds": []} for cell in wanted]
    # The first is to warm up, and to see who answers.
    for number in range(run.pick(3, 2) + 1):
        tell(f"round {number}")
        for cell, each in zip(wanted, found, strict=True):
            if each["problem"]:
                continue
            units = {"app": cell.unit, "nginx": "nginx.service", "journal": "systemd-journald*.service"}
            try:
                seen = host.sample(units, load(cell, seconds if number else 1))
            except (Failed, OSError, ValueError) as error:
                each["problem"] = (str(error).splitlines() or [type(error).__name__])[-1][:200]
            else:
                each["problem"] = "no good answer" if seen["failed"] >= seen["requests"] else ""
                each["rounds"] += [seen] if number else []
            if each["problem"]:
                tell(f"{label(each)}: {each['problem']}")
                if cell.is_base:
                    raise Failed(f"there is nothing to compare with: {each['problem']}")
    return found


async def echo(address: str, name: str, certificate: str, seconds: float) -> Answers:
    """Send messages over WebSockets, each as soon as the one before came back.

    Args:
        address: where the host is.
        name: the name that is asked.
        certificate: the only one to trust, in PEM.
        seconds: for how long.

    Returns:
        How many messages were sent; what did not come back as it was failed.
    """
    context = ssl.create_default_context(cadata=certificate)
    end = time.monotonic() + seconds
    sent = failed = 0

    async def talk() -> None:
        nonlocal sent, failed
        text = "x" * 64
        async with websockets.connect(f"wss://{name}/ws", host=address, ssl=context, proxy=None) as connection:
            while time.monotonic() < end:
                sent += 1
                await connection.send(text)
                back = await connection.recv()
                failed += back != text

    for outcome in await asyncio.gather(*(talk() for _ in range(SOCKETS)), return_exceptions=True):
        if isinstance(outcome, (OSError, websockets.WebSocketException)):
            sent, failed = max(sent, 1), failed + 1
        elif outcome is not None:
            raise outcome
    return Answers(sent, failed)


# --- what it came to


def base(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cell that others are compared with."""
    own = [field.name for field in dataclasses.fields(Cell)]
    return next(cell for cell in found["cells"] if Cell(**{name: cell[name] for name in own}).is_base)


def ratio(cell: Mapping[str, Any], found: Mapping[str, Any]) -> Spread:
    """The CPU time of a request, as a ratio to a small answer of the default server in the same round."""
    return Spread.ratios(per_request(cell["rounds"], *GROUPS), per_request(base(found)["rounds"], *GROUPS))


def label(cell: Mapping[str, Any]) -> str:
    """What a cell is, for a plot."""
    way = f", {cell['transport']}, keepalive {'on' if cell['keepalive'] else 'off'}" if cell["transport"] else ""
    return f"{cell['server']}{way}{', deployed so' if cell['deployed'] else ''}"


def _figures(cell: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if cell["problem"]:
        return [f"not measured: {cell['problem']}", *["-"] * 5]
    rounds = cell["rounds"]
    times = [f"{Spread.of(per_request(rounds, group)).median:.0f}" for group in GROUPS]
    return [str(ratio(cell, found)), *times, count(total(rounds, "requests")), count(total(rounds, "failed"))]


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of this part."""
    head = ("CPU per request", "server, µs", "nginx, µs", "journal, µs", "requests", "failed")
    small = [cell for cell in found["cells"] if cell["kind"] == SMALL]
    yield Table(
        "Ways from nginx to the server",
        "A small answer in JSON, over TLS connections that are kept. CPU per request is that of server, nginx and "
        "journal, as a ratio to the default server as Slipway deploys it; what Slipway deploys is marked. All else is "
        "the same unit in the other slot, for comparison only, where the server keeps nginx's connections though it "
        "may lose a request by that, and systemd gives it a TCP socket as well. The floor is nginx with nothing "
        f"of Python's behind it. Versions: {', '.join(found['versions'])}.",
        ("server", "socket", "upstream keepalive", "deployed so", *head),
        [
            (
                cell["server"],
                cell["transport"] or "-",
                ("on" if cell["keepalive"] else "off") if cell["transport"] else "-",
                "yes" if cell["deployed"] else "",
                *_figures(cell, found),
            )
            for cell in small
        ],
        plot="path",
    )
    yield Table(
        "Other answers",
        "As deployed; ratios are to the same small answer as above. A WebSocket's request is a message of 64 bytes, "
        f"which comes back, over {SOCKETS} connections.",
        ("what", "server", *head),
        [
            (kind, cell["server"] if kind != STATIC else "nginx", *_figures(cell, found))
            for kind in (DOWNLOAD, UPLOAD, ECHO, STATIC)
            for cell in found["cells"]
            if cell["kind"] == kind
        ],
    )


def plots(found: Mapping[str, Any]) -> Iterator[Bars]:
    """The plot of this part."""
    measured = [cell for cell in found["cells"] if cell["kind"] == SMALL and not cell["problem"]]
    ratios = {label(cell): (cell, ratio(cell, found)) for cell in measured}
    bars = {name: (segments(cell["rounds"], GROUPS, spread.median), spread) for name, (cell, spread) in ratios.items()}
    yield Bars(
        "path",
        "A small answer: CPU per request",
        "ratio to the default server as Slipway deploys it",
        ("server", "nginx", "journal"),
        bars,
    )
