"""Slipway's defaults against what tutorials show: the CPU time of a request, and what deploys cost under load.

The tutorial is DigitalOcean's "How To Set Up an ASGI Django App with Postgres, Nginx, and Uvicorn", with a FastAPI app
in the place of Django's. FastAPI's and uvicorn's documentation have long said the same: ``gunicorn main:app --workers 4
--worker-class uvicorn.workers.UvicornWorker``. Its files are in as_in_tutorials/.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from load import Load

from .figures import Bars, Spread, Table, count, per_request, segments, total
from .hosts import HERE, ROOT, WORK, Client, Failed, Host, Run, packed, play, source, tell
from .path import PACKAGES
from .reload import CLIENTS, SETTLE_SECONDS, WARM_SECONDS, failures, load, silence, summary

# The most CPU time that a request may take, as a ratio to the tutorial's.
LIMIT = 0.75
DEPLOY_SECONDS = 60.0
PROJECT = "/home/sammy/myprojectdir"
SITES = {"slipway": "slipway.bench.test", "tutorial": "tutorial.bench.test"}
ALONE = "alone.bench.test"
UNITS = {
    "slipway": {"app": "slipway-shop@*.service"},
    "tutorial": {"app": "gunicorn.service"},
}
BESIDE = {"nginx": "nginx.service", "journal": "systemd-journald*.service"}
SLIPWAY, RESTART, RELOAD, RESTART_ALONE = (
    "Slipway, `playbooks/deploy.yml`",
    "tutorial, `systemctl restart gunicorn`",
    "tutorial, `systemctl reload gunicorn`",
    "tutorial without `gunicorn.socket`, restart",
)
_CERTIFICATE = f"""
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={SITES["slipway"]} \
  -addext subjectAltName=DNS:{SITES["slipway"]},DNS:{SITES["tutorial"]},DNS:{ALONE} \
  -addext basicConstraints=critical,CA:FALSE -keyout /root/privkey.pem -out /root/fullchain.pem 2>/dev/null
"""


def measure(run: Run) -> dict[str, Any]:
    """Measure, and return the rounds of both and what each deploy cost."""
    source("fastapi", 1)
    with run.hosts("slipway-bench-defaults", "slipway-bench-tutorial", "slipway-bench-client") as hosts:
        slipway, tutorial, client = hosts[0], hosts[1], Client(hosts[2].name)
        certificate = _certificate(client)
        tell("deploying the same app by Slipway and as in the tutorial")
        play("playbooks/site.yml", limit=[slipway.name])
        _set_up(tutorial, _workers(slipway))
        client.prepare({SITES["slipway"]: slipway.address, SITES["tutorial"]: tutorial.address})
        both = {"slipway": slipway, "tutorial": tutorial}
        return {
            "versions": {
                "slipway": slipway.versions("/srv/slipway/shop/live/release/", [*PACKAGES, "fastapi"]),
                "tutorial": tutorial.versions(PROJECT, [*PACKAGES, "fastapi"]),
            },
            **_rounds(run, client, both),
            "deploys": _deploys(run, both, certificate),
        }


def _certificate(client: Host) -> str:
    """Make one certificate for both, and return it."""
    client.run(_CERTIFICATE)
    for name in ("fullchain.pem", "privkey.pem"):
        (WORK / name).write_text(client.run(f"cat /root/{name}"))
    return (WORK / "fullchain.pem").read_text()


def _workers(host: Host) -> int:
    """With how many workers the app has started."""
    size = json.loads(host.run("cat /run/slipway/shop-*/sizing"))
    return int(size["workers"])


def _set_up(host: Host, workers: int) -> None:
    """Do what the tutorial says, with so many workers."""
    host.trust_our_cas()
    for path in (HERE / "as_in_tutorials").iterdir():
        host.send(f"/root/tutorial/{path.name}", path.read_text())
    host.send("/root/tutorial/server.txt", (ROOT / "roles/app/files/server/gunicorn.txt").read_text())
    for name in ("fullchain.pem", "privkey.pem"):
        host.send(f"/etc/ssl/bench/{name}", (WORK / name).read_text())
    host.run("cat >/root/tutorial/source.tar", packed(source("fastapi", 1)))
    host.run(f"bash /root/tutorial/setup.sh {workers}")


def _rounds(run: Run, client: Client, hosts: Mapping[str, Host]) -> dict[str, Any]:
    """The same load on both, in turns, and how many lines of Slipway's log came of it."""
    found: dict[str, list[dict[str, Any]]] = {who: [] for who in hosts}
    seconds = run.pick(6, 2)
    for who in hosts:
        client.wrk(f"https://{SITES[who]}/", 2)
    started = hosts["slipway"].run("date +@%s.%6N").strip()
    for number in range(run.pick(9, 2)):
        with run.attempt(f"round {number + 1}"):
            seen: dict[str, dict[str, Any]] = {}
            for who, host in hosts.items():
                load_it = functools.partial(client.wrk, f"https://{SITES[who]}/", seconds)
                seen[who] = host.sample({**UNITS[who], **BESIDE}, load_it)
            for who, each in seen.items():
                found[who].append(each)
    if not found["slipway"]:
        raise Failed("no round was measured to its end")
    log = f"journalctl --namespace=requests --identifier=nginx --output=cat --quiet --since={started}"
    lines = hosts["slipway"].run(f"{log} | wc -l")
    return {"rounds": found, "logged": int(lines)}


def _deploys(run: Run, hosts: Mapping[str, Host], certificate: str) -> dict[str, list[dict[str, Any]]]:
    """Deploys in each way, in turns, each under the same load."""
    slipway, tutorial = hosts["slipway"], hosts["tutorial"]
    with run.attempt(f"start {RESTART_ALONE}"):
        _start_alone(tutorial)

    def by_slipway(path: Path) -> None:
        layer = {"slipway_app_overrides_bench": {"shop": {"source": {"path": str(path)}}}}
        play("playbooks/deploy.yml", limit=[slipway.name], variables=layer)

    def by_hand(command: str) -> Callable[[Path], object]:
        # What `git pull` comes to.
        return lambda path: tutorial.run(f"tar -x --no-same-owner -C {PROJECT} && {command}", packed(path))

    ways: dict[str, tuple[Host, str, Callable[[Path], object]]] = {
        SLIPWAY: (slipway, SITES["slipway"], by_slipway),
        RESTART: (tutorial, SITES["tutorial"], by_hand("systemctl restart gunicorn")),
        RELOAD: (tutorial, SITES["tutorial"], by_hand("systemctl reload gunicorn")),
        RESTART_ALONE: (tutorial, ALONE, by_hand("systemctl restart alone")),
    }
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    version = 1
    for number in range(run.pick(6, 2)):
        for way, (host, name, deploy) in ways.items():
            version += 1
            path = source("fastapi", version)
            with run.attempt(f"deploy {number + 1}: {way}"), load(host, name, certificate) as watching:
                time.sleep(WARM_SECONDS)
                watching.take()
                deploy(path)
                _wait_for(str(version), watching)
                time.sleep(SETTLE_SECONDS)
                found[way].append(summary(watching.take()))
    return found


def _wait_for(version: str, watching: Load) -> None:
    """Wait until a version has answered the load.

    Raises:
        Failed: it did not.
    """
    deadline = time.monotonic() + DEPLOY_SECONDS
    # A copy, for it is counted meanwhile.
    while version not in {release for release, _ in list(watching.report.served)}:
        if time.monotonic() > deadline:
            raise Failed(f"version {version} was not served within {DEPLOY_SECONDS:g} s: {watching.report}")
        time.sleep(0.2)


def _start_alone(host: Host) -> None:
    """Serve the same by a second unit that makes its socket by itself, as tutorials without gunicorn.socket have it."""
    unit = host.run("cat /etc/systemd/system/gunicorn.service").replace("Requires=gunicorn.socket\n", "")
    site = host.run("cat /etc/nginx/sites-available/myproject").replace(SITES["tutorial"], ALONE)
    own = f"unix:{PROJECT}/alone.sock"
    host.send("/etc/systemd/system/alone.service", unit.replace("unix:/run/gunicorn.sock", own))
    host.send("/etc/nginx/sites-enabled/alone", site.replace("unix:/run/gunicorn.sock", own))
    host.run("systemctl daemon-reload && systemctl start alone && nginx -t -q && systemctl reload nginx")


# --- what it came to


def ratio(found: Mapping[str, Any], name: str = "host") -> Spread:
    """The CPU time of a request, Slipway's as a ratio to the tutorial's: of the whole host, or of a group of units."""
    ours, theirs = (per_request(found["rounds"][who], name) for who in ("slipway", "tutorial"))
    return Spread.ratios(ours, theirs)


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of this part."""
    whole = ratio(found)
    verdict = "It does." if whole.median <= LIMIT else "**It does not.**"
    lost = total(found["rounds"]["slipway"], "requests") - found["logged"]
    log = f"**{count(lost)} of them are missing.**" if lost > 0 else "None is missing."
    rows = []
    for who, rounds in found["rounds"].items():
        groups = [per_request(rounds, group) for group in ("app", "nginx", "journal", "host")]
        times = [f"{Spread.of(group).median:.0f}" for group in groups]
        compared = str(whole) if who == "slipway" else "1"
        rows.append((who, compared, *times, count(total(rounds, "requests")), count(total(rounds, "failed"))))
    yield Table(
        "The CPU time of a request",
        "An app of FastAPI's answers a little JSON, over TLS connections that are kept: by Slipway with nothing but "
        "defaults, and as in [DigitalOcean's tutorial](https://www.digitalocean.com/community/tutorials/"
        "how-to-set-up-an-asgi-django-app-with-postgres-nginx-and-uvicorn-on-ubuntu-20-04), "
        "[file by file](../bench/measure/as_in_tutorials), with the same certificate, as many workers and the same "
        f"versions ({', '.join(found['versions']['tutorial'])}). CPU per request is that of all that runs on the host, "
        f"of which app, nginx and journal are parts. Slipway shall need at most {LIMIT} of it. {verdict} Both log each "
        f"request to the journal, where Slipway's shall all be. {log}",
        ("setup", "CPU per request", "app, µs", "nginx, µs", "journal, µs", "host, µs", "requests", "failed"),
        rows,
        plot="tutorial",
    )
    deploys = {way: times for way, times in found["deploys"].items() if times}
    if SLIPWAY not in deploys:
        return
    ours = total(deploys[SLIPWAY], "failed")
    verdict = f"**{count(ours)} failed.**" if ours else "None did."
    yield Table(
        "Deploys under load",
        f"Each deploy brings changed code, while {CLIENTS} clients ask, half of them by POST, half over a connection "
        f"for each request. Slipway shall fail none. {verdict} The tutorial has no word on reloads: `ExecReload` is "
        "from [gunicorn's documentation](https://gunicorn.org/deploy). Silence is the longest time without an answer.",
        ("deployed by", "times", "requests", "failed", "silence, ms"),
        [
            (way, str(len(times)), count(total(times, "requests")), failures(times), silence(times))
            for way, times in deploys.items()
        ],
    )


def plots(found: Mapping[str, Any]) -> Iterator[Bars]:
    """The plot of this part."""
    groups, rest = ("app", "nginx", "journal"), "all else on the host"
    spreads = {"Slipway": ratio(found), "tutorial": Spread(1.0, 1.0, 1.0)}
    bars = {}
    for who, spread in spreads.items():
        rounds = [
            {**each, "cpu": {**each["cpu"], rest: each["cpu"]["host"] - sum(each["cpu"][group] for group in groups)}}
            for each in found["rounds"][who.lower()]
        ]
        bars[who] = (segments(rounds, (*groups, rest), spread.median), spread)
    title, axis = "A small answer of FastAPI's: CPU per request", "ratio to the tutorial"
    yield Bars("tutorial", title, axis, (*groups, rest), bars, LIMIT, "what Slipway may need")
