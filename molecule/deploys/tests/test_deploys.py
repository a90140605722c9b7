"""What operators leave virtual machines for, shown under load."""

import re
import time
from pathlib import Path

import pytest
from deploying import Deploys
from hosts import APP, look, wait_until


def version(deploys: Deploys) -> str:
    return str(deploys.site.get("/api/about").json()["version"])


def test_reloads(deploys: Deploys, soak: bool) -> None:
    with deploys.load() as load:
        for _ in range(20 if soak else 5):
            before = look(deploys.host)
            deploys.host.check_output(f"systemctl reload {before['unit']}")
            wait_until(lambda old=before: not old["workers"] & look(deploys.host)["workers"], 60, "new workers")
    deploys.row("reloads by SIGHUP, workers recycled as well", load.report)
    assert not load.report.failed


def test_switches_to_new_code(deploys: Deploys, soak: bool) -> None:
    with deploys.load() as load:
        for _ in range(10 if soak else 2):
            deploys.deploy(source={"path": str(deploys.source())})
            assert version(deploys) == f"1.0.{deploys.version}"
    deploys.row("switches to new code", load.report, releases=2)
    assert not load.report.failed


def test_a_changed_environment_and_a_rotated_secret(deploys: Deploys) -> None:
    with deploys.load() as load:
        deploys.deploy(environment={"GREETING": "second"})
        deploys.deploy(secrets={"session_key": "another one of at least thirty-two characters"})
    deploys.row("a changed environment, then a rotated secret", load.report)
    live = look(deploys.host)
    assert "GREETING=second" in deploys.host.file(f"/proc/{live['master']}/environ").content_string
    secret = deploys.host.file(f"/run/credentials/{live['unit']}/session_key").content_string
    assert secret.startswith("another one")
    assert not load.report.failed


def test_rollbacks(deploys: Deploys, soak: bool) -> None:
    took = []
    with deploys.load() as load:
        for _ in range(10 if soak else 2):
            before = version(deploys)
            deploys.deploy(source={"path": str(deploys.source())})
            assert version(deploys) != before
            # The slot that was live keeps its WebSockets and slow downloads for as long as drain_seconds.
            time.sleep(6)
            said = deploys.deploy(playbook="rollback")
            took.append(float(re.search(r"slot \w+,\s+([0-9.]+) s", said)[1]))  # type: ignore[index]
            assert version(deploys) == before
    deploys.row(f"rollbacks, the slowest in {max(took)} s", load.report, releases=2)
    assert not load.report.failed


BROKEN = {
    "an import that fails": (
        lambda source: append(source / "guestbook/main.py", "import no_such_module"),
        {},
        "no_such_module",
    ),
    "never ready": (
        None,
        {"ready_path": "/no-such-path", "ready_seconds": 5},
        "was not answered well within 5 seconds",
    ),
    "a wrong entry point": (None, {"entrypoint": "guestbook.main:nothing"}, "nothing"),
    "a failing migration": (None, {"migrate": "echo no such table >&2; exit 3"}, "no such table"),
    "a dependency that cannot be had": (
        lambda source: append(source / "requirements.txt", f"no-such-package-at-all==1.0 --hash=sha256:{'0' * 64}"),
        {},
        "no-such-package-at-all",
    ),
}


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_refused(deploys: Deploys, broken: str) -> None:
    change, options, said = BROKEN[broken]
    before, serving = look(deploys.host), version(deploys)
    with deploys.load() as load:
        time.sleep(2)
        output = deploys.refused(source={"path": str(deploys.source(change))}, **options)
        time.sleep(2)
    deploys.row(f"refused: {broken}", load.report)
    assert said in output
    assert "what served still does" in output
    assert look(deploys.host)["master"] == before["master"]
    assert version(deploys) == serving
    assert not load.report.failed


def test_what_crashes_after_the_switch_is_taken_back(deploys: Deploys) -> None:
    def crash(source: Path) -> None:
        # It dies of the first question that comes through nginx.
        append(
            source / "guestbook/main.py",
            "import os\n\n@app.middleware('http')\nasync def die(request, call_next):\n"
            "    if request.headers.get('x-real-ip') or request.headers.get('x-request-id'):\n"
            "        os.kill(os.getppid(), 9)\n    return await call_next(request)",
        )

    serving = version(deploys)
    with deploys.load() as load:
        time.sleep(2)
        output = deploys.refused(source={"path": str(deploys.source(crash))})
        time.sleep(2)
    deploys.row("taken back: a crash just after the switch", load.report)
    assert "was taken back after the switch" in output
    assert version(deploys) == serving


def test_websockets_stay_for_the_drain(deploys: Deploys) -> None:
    with deploys.load(sockets=8) as load:
        time.sleep(3)
        deploys.deploy(source={"path": str(deploys.source())})
        wait_until(lambda: len(load.report.lives) >= 8, 30, "all sockets are back")
    deploys.row(f"WebSockets: {dict(load.report.closes)}", load.report, releases=2)
    assert set(load.report.closes) == {1012}
    assert all(back < 1 for _, back in load.report.lives)
    assert not load.report.failed


def test_a_page_of_the_release_before_finds_its_assets(deploys: Deploys) -> None:
    found = re.search(r"/static/dist/app\.[0-9a-f]{12}\.js", deploys.site.get("/").text)
    assert found
    deploys.deploy(source={"path": str(deploys.source(lambda source: append(source / "static/app.js", "// changed")))})
    assert found[0] not in deploys.site.get("/").text
    assert deploys.site.get(found[0]).status_code == 200


def test_killed_workers_and_masters(deploys: Deploys, soak: bool) -> None:
    for who in ("worker", "master"):
        with deploys.load() as load:
            for _ in range(10 if soak else 3):
                live = look(deploys.host)
                victim = live["master"] if who == "master" else min(live["workers"])
                deploys.host.check_output(f"kill -9 {victim}")
                wait_until(deploys.site.is_up, 10, "up again")
                time.sleep(2)
        deploys.row(f"kill -9 of a {who}", load.report)
        lost = {kind for kind in load.report.failed if kind.startswith(("GET kept", "GET fresh"))}
        assert not lost


def test_two_deploys_at_once(deploys: Deploys) -> None:
    home = f"/srv/slipway/{APP}"
    deploys.host.run(f"setsid flock {home}/lock sleep 45 >/dev/null 2>&1 &")
    output = deploys.refused(source={"path": str(deploys.source())})
    assert f"another deploy of {APP} is at work on this host" in output
    wait_until(lambda: deploys.host.run(f"flock --nonblock {home}/lock true").rc == 0, 60, "the lock is free")
