"""Every server for the same apps: the same checks of each, and from one to another under load."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from deploying import LEAST, SOAK, Deploys
from hosts import exposure, journal, look, wait_until

DEFAULT = "gunicorn"
# From one to the next and around, in full from each to each other; the first is what each app has been deployed with.
WAYS = {
    "guestbook": [DEFAULT, "uvicorn", DEFAULT, "hypercorn", *(["uvicorn", "hypercorn"] if SOAK else [])],
    "notes": ["gunicorn-wsgi", "waitress"],
}


@pytest.fixture(scope="module", autouse=True)
def load(deploys: Deploys) -> Iterator[None]:
    """The load."""
    with deploys.load:
        yield


def size(deploys: Deploys) -> dict[str, Any]:
    """What the live server wrote down of itself."""
    slot = look(deploys.host, deploys.app)["slot"]
    found: dict[str, Any] = json.loads(deploys.host.file(f"/run/slipway/{deploys.app}-{slot}/sizing").content_string)
    return found


def serving(deploys: Deploys) -> set[int]:
    """The processes that answer requests: of uvicorn's and hypercorn's children, one keeps track of what is shared."""
    master = int(look(deploys.host, deploys.app)["master"])
    listed = deploys.host.run(f"pgrep --list-full --parent {master}").stdout.splitlines()
    return {int(line.split()[0]) for line in listed if "resource_tracker" not in line} or {master}


def verify(deploys: Deploys, server: str) -> None:
    """What is true of an app whatever serves it."""
    site, host = deploys.site, deploys.host
    slot, release = host.check_output(
        f"cd /srv/slipway/{deploys.app} && readlink live && readlink live/release"
    ).splitlines()
    about = site.get("/api/about").json()
    assert (f"slots/{about['slot']}", f"../../releases/{about['release']}") == (slot, release)
    command = host.check_output(f"systemctl show --property=ExecStart {look(host, deploys.app)['unit']}")
    assert server.partition("-")[0] in command
    answer = site.get("/api/client", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"})
    client = answer.json()
    assert (client["scheme"], client["host"]) == ("https", site.domain)
    assert client["address"] not in ("", "6.6.6.6", None)
    assert "slipway" not in str(answer.headers).lower()
    assert answer.headers["server"] == "nginx"
    body = bytes(range(256)) * 400
    assert site.request("POST", "/api/echo", content=body).content == body
    assert site.get("/api/slow").text.endswith("end\n")
    assert site.get("/ready").status_code == 404
    found = size(deploys)
    wait_until(lambda: len(serving(deploys)) == found["workers"], 10, f"{found['workers']} workers of {server}")
    assert exposure(host, look(host, deploys.app)["unit"]) <= 1.1
    identifier = answer.headers["x-request-id"]
    line = logged(deploys, identifier)
    assert (line["app"], line["slot"], line["release"], line["status"]) == (
        deploys.app,
        about["slot"],
        about["release"],
        200,
    )
    # What the server says of itself is a line of JSON each.
    unit = look(host, deploys.app)["unit"]
    said = journal(host, f"--unit={unit} --identifier=python --lines=20")
    assert said and all(json.loads(text)["slot"] == about["slot"] for text in said)
    if deploys.app == "guestbook":
        assert about["release"] in json.dumps(asyncio.run(first_words(deploys)))
        assert site.is_up()
    assert f"from slot {about['slot']}, unchanged" in " ".join(deploys.deploy().split())


async def first_words(deploys: Deploys) -> Any:
    """What the app says first over a WebSocket."""
    site = deploys.site
    address = f"wss://{site.domain}:{site.port(443)}/ws"
    async with websockets.connect(address, host="127.0.0.1", ssl=site.tls, proxy=None) as connection:
        return json.loads(await asyncio.wait_for(connection.recv(), 20))


def logged(deploys: Deploys, identifier: str) -> dict[str, Any]:
    """The line of a request among those of nginx."""
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        lines = journal(deploys.host, "--namespace=requests --since=-1min")
        found[:] = [json.loads(line) for line in lines if identifier in line]
        return bool(found)

    wait_until(is_found, 10, "the request is logged")
    return found[0]


def test_from_each_server_to_the_next(deploys: Deploys) -> None:
    servers = [*WAYS[deploys.app], WAYS[deploys.app][0]]
    verify(deploys, servers[0])
    for before, server in itertools.pairwise(servers):
        row = deploys.row(f"{deploys.app}: from {before} to {server}")
        with deploys.counted(row, LEAST):
            row.count = 1
            deploys.deploy(server=server)
            deploys.drained()
        found = size(deploys)
        row.note = f"{found['workers']} x {found['threads']}: {found['why']}"
        default = DEFAULT in (before, server)
        assert not (default and row.report.failed), row.report
        row.hold(releases=2, slots=2, lost=True)
        verify(deploys, server)


def reloads(deploys: Deploys, server: str) -> None:
    row = deploys.row(f"{deploys.app}: reload of {server}")
    with deploys.counted(row, LEAST):
        for _ in range(2):
            before = serving(deploys)
            deploys.deploy(playbook="reload")
            wait_until(lambda before=before: not before & serving(deploys), 30, "the workers of before are gone")
            row.count += 1
        deploys.drained()
    assert not (server == DEFAULT and row.report.failed), row.report
    row.hold(lost=True)


def test_a_reload_with_each_server(deploys: Deploys) -> None:
    for server in dict.fromkeys(WAYS[deploys.app]):
        deploys.deploy(server=server)
        deploys.drained()
        reloads(deploys, server)
    deploys.deploy(server=WAYS[deploys.app][0])


def test_a_rollback_goes_back_to_the_server_before(deploys: Deploys) -> None:
    usual, other = WAYS[deploys.app][0], WAYS[deploys.app][1]
    deploys.deploy(server=other)
    deploys.deploy(playbook="rollback")
    assert usual.partition("-")[0] in deploys.host.check_output(
        f"systemctl show --property=ExecStart {look(deploys.host, deploys.app)['unit']}"
    )
    assert deploys.site.get("/api/about").status_code == 200
