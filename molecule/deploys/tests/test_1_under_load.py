"""Deploys that nobody notices: under load that goes on from the first test of a host to its last."""

import hmac
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploying import (
    CLIENTS,
    DRAIN_SECONDS,
    HOME,
    LEAST,
    SLOW,
    SOCKETS,
    Deploys,
    seconds_on_the_host,
)
from disks import small_releases
from hosts import ROOT, journal, look, wait_until

SILENCE_SECONDS = 0.25
ROLLBACK_SECONDS = 3.0
BACK_SECONDS = 2.0


@pytest.fixture(scope="module", autouse=True)
def load(deploys: Deploys) -> Iterator[None]:
    """The load."""
    with deploys.load:
        yield


@pytest.mark.soak
def test_nothing_at_all(deploys: Deploys) -> None:
    row = deploys.row("nothing at all, for comparison")
    with deploys.counted(row, LEAST):
        pass
    row.hold()


def test_reloads(deploys: Deploys, soak: bool) -> None:
    def reloaded(how: Callable[[], object]) -> None:
        before = look(deploys.host)
        how()
        # Not before a new worker serves: a SIGHUP would end those that are still starting.
        wait_until(lambda: str(deploys.about()["pid"]) not in before["workers"], 60, "a new worker serves")
        wait_until(lambda: not before["workers"] & look(deploys.host)["workers"], 60, "the old workers are gone")
        assert look(deploys.host)["master"] == before["master"]
        row.count += 1

    # So few that each worker is replaced several times.
    few = 1000 if soak else 500
    row = deploys.row("reloads by SIGHUP, workers recycled as well")
    with deploys.counted(row, LEAST):
        reloaded(lambda: deploys.deploy(max_requests=few))
        for _ in range(18 if soak else 1):
            time.sleep(2)
            reloaded(lambda: deploys.host.check_output(f"systemctl reload {look(deploys.host)['unit']}"))
        lines = journal(deploys.host, f"--unit={look(deploys.host)['unit']} --since=-5min")
        reloaded(lambda: deploys.deploy(playbook="reload", max_requests=0))
    recycled = sum("Maximum request limit" in line for line in lines)
    row.note = f"{recycled} workers recycled"
    assert recycled
    row.hold()


def other_packages(source: Path) -> None:
    """Let an app bring a server of its own, the oldest that Slipway serves, beside its packages."""
    requirements = source / "requirements.txt"
    requirements.write_text(requirements.read_text() + (ROOT / "tests/unit/worker_oldest.txt").read_text())


def uvicorn(deploys: Deploys) -> str:
    """The version of uvicorn that the live release runs on."""
    command = f"{HOME}/live/release/.venv/bin/python -c 'import uvicorn; print(uvicorn.__version__)'"
    return str(deploys.host.check_output(command))


def test_switches_to_new_code_and_rollbacks(deploys: Deploys, soak: bool) -> None:
    switches = deploys.row("switches to new code, every other with another uvicorn and packages")
    rollbacks = deploys.row("rollbacks")
    usual, took = uvicorn(deploys), []
    served = {usual}
    for number in range(10) if soak else [1]:
        before = deploys.about()
        with deploys.counted(switches):
            deploys.deploy(**deploys.release(other_packages if number % 2 else None))
            if soak and number % 2:
                # Else the rollback meets a slot that still drains.
                deploys.drained()
        after = deploys.whole()
        assert (after["release"], after["slot"]) != (before["release"], before["slot"])
        assert (uvicorn(deploys) == usual) == (number % 2 == 0)
        served.add(uvicorn(deploys))
        switches.count += 1
        with deploys.counted(rollbacks):
            took.append(seconds_on_the_host(deploys.deploy(playbook="rollback")))
            deploys.drained()
        assert (back := deploys.about())["release"] == before["release"]
        assert back["version"] == before["version"]
        rollbacks.count += 1
    for row in (switches, rollbacks):
        with deploys.counted(row, LEAST - row.report.requests):
            pass
    switches.note = f"uvicorn {', '.join(sorted(served))}"
    rollbacks.note = f"{max(took)} s on the host at most"
    assert len(served) == 2
    switches.within("the longest silence", switches.report.silence, SILENCE_SECONDS)
    switches.hold(releases=2, slots=2)
    rollbacks.within("a rollback on the host", max(took), ROLLBACK_SECONDS)
    rollbacks.hold(releases=2, slots=2)


def test_a_changed_environment_and_a_rotated_secret(deploys: Deploys) -> None:
    def signed_with(key: str) -> bool:
        identifier, _, signature = deploys.site.get("/").cookies["visitor"].partition(".")
        return hmac.digest(key.encode(), f"cookie:{identifier}".encode(), "sha256").hex() == signature

    row = deploys.row("a changed environment, then a rotated secret")
    key = "another one of at least thirty-two characters"
    with deploys.counted(row, LEAST):
        deploys.deploy(environment={"GREETING": "Ahoy"})
        assert deploys.about()["greeting"] == "Ahoy"
        # Until nginx has let go of its connections to it, the slot before may still answer.
        wait_until(lambda: "Ahoy" in deploys.site.get("/").text, 3, "the new value is served")
        assert not signed_with(key)
        deploys.deploy(secrets={"session_key": key})
        assert signed_with(key)
        assert deploys.about()["greeting"] == "Ahoy"
        row.count = 2
    row.note = "the new value is served"
    row.hold(slots=2)


# --- what is broken


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


def fails_at_import(source: Path) -> None:
    append(source / "guestbook/main.py", "import no_such_module")


def needs_what_there_is_not(source: Path) -> None:
    append(source / "requirements.txt", f"no-such-package-at-all==1.0 --hash=sha256:{'0' * 64}")


def crashes_before_the_last_probe(source: Path) -> None:
    append(
        source / "guestbook/main.py",
        "import os\n\n@app.middleware('http')\nasync def die(request, call_next):\n"
        "    asyncio.get_running_loop().call_later(0.05, os.kill, os.getppid(), 9)\n"
        "    return await call_next(request)",
    )


def crashes_after_the_switch(source: Path) -> None:
    # It dies of the first question that comes through nginx.
    append(
        source / "guestbook/main.py",
        "import os\n\n@app.middleware('http')\nasync def die(request, call_next):\n"
        "    if 'x-request-id' in request.headers:\n"
        "        os.kill(os.getppid(), 9)\n    return await call_next(request)",
    )


BROKEN: dict[str, tuple[Callable[[Path], None] | None, dict[str, object], str]] = {
    "an import that fails": (fails_at_import, {}, "no_such_module"),
    "never ready": (None, {"ready_path": "/no-such-path", "ready_seconds": 5}, "was not answered well within 5 sec"),
    "a wrong entry point": (
        None,
        {"entrypoint": "guestbook.main:nothing", "environment": {"GREETING": ""}},
        "'nothing'",
    ),
    "a failing migration": (None, {"migrate": "echo no such table >&2; exit 3"}, "no such table"),
    "a dependency that there is not": (needs_what_there_is_not, {}, "no-such-package-at-all"),
    "a crash before the last probe": (crashes_before_the_last_probe, {}, "the app stops by itself"),
}


@pytest.mark.only("debian-13")
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_refused(deploys: Deploys, broken: str, soak: bool) -> None:
    change, options, said = BROKEN[broken]
    row = deploys.row(f"refused: {broken}")
    with deploys.counted(row, LEAST):
        before = deploys.footprint()
        # Without a change, it is the release that is live, built already, which the options break.
        output = deploys.refused(**(deploys.release(change) if change else {}), **options)
        assert deploys.footprint() == before
        # Nor does it start again and again where nobody looks.
        deploys.drained()
        row.count = 1
        assert said in output
        assert "what served still does" in output
        if soak:
            deploys.deploy(**deploys.release())
    row.note = "the next deploy went through" if soak else ""
    row.hold()


@pytest.mark.only("debian-13")
def test_a_disk_that_is_full(deploys: Deploys) -> None:
    # Last of what is refused: the deploy that goes through at its end meets what all of them may have left.
    row = deploys.row("refused: a full disk while building; then the same with room")
    with deploys.counted(row, LEAST), small_releases(deploys.site.container, "16m") as resize:
        before = deploys.footprint()
        wanted = deploys.release()
        output = deploys.refused(**wanted)
        assert deploys.footprint() == before
        assert "No space left on device" in output
        assert "what served still does" in output
        resize("1g")
        deploys.deploy(**wanted)
        deploys.whole()
        row.count = 1
    row.hold(releases=2, slots=2)


@pytest.mark.only("debian-13")
def test_what_crashes_after_the_switch_is_taken_back(deploys: Deploys) -> None:
    row = deploys.row("taken back: a crash just after the switch")
    before = deploys.footprint()
    with deploys.counted(row, LEAST):
        with deploys.followed() as live:
            output = deploys.refused(**deploys.release(crashes_after_the_switch))
        row.count = 1
    assert deploys.footprint() == before
    assert "was taken back after the switch" in output
    (_, first), (switched, second), (back, third) = live
    assert first == third != second
    row.note = f"back after {back - switched:.2f} s"
    row.within("flipping back", back - switched, BACK_SECONDS)
    row.hold(lost=True)


# --- WebSockets, open pages


@pytest.mark.only("debian-13")
def test_websockets_and_open_pages(deploys: Deploys) -> None:
    sockets = deploys.row("WebSockets open through a switch")
    pages = deploys.row("an open page, after the switch, gets its own assets")
    deploys.drained()
    page = deploys.site.get("/").text
    assets = {path: deploys.site.get(path).content for path in re.findall(r'"(/static/[^"]+)"', page)}
    assert len(assets) == 3
    with deploys.counted(sockets, LEAST):
        with deploys.followed() as live:
            deploys.deploy(**deploys.release(lambda source: append(source / "static/app.js", "// changed")))
        for path, content in assets.items():
            answer = deploys.site.get(path)
            assert (answer.status_code, answer.content) == (200, content)
            pages.count += 1
        wait_until(lambda: len([life for life in deploys.load.report.lives if life.back]) >= SOCKETS, 30, "all back")
        release = deploys.whole()["release"]
        sockets.count = len(deploys.load.report.lives)
    new = set(re.findall(r'"(/static/[^"]+)"', deploys.site.get("/").text))
    assert len(new - set(assets)) == 1
    pages.passed = True
    switched, lives = live[-1][0], sockets.report.lives
    stayed = [life.closed - switched for life in lives]
    back = [life.back - life.closed for life in lives]
    sockets.note = f"closed {min(stayed):.1f} to {max(stayed):.1f} s after the switch, back in {max(back):.2f} s"
    assert {life.code for life in lives} == {1012}
    assert {life.release for life in lives} == {release}
    assert min(stayed) >= DRAIN_SECONDS
    sockets.within("coming back", max(back), 1)
    sockets.hold(releases=2, slots=2)


# --- kill -9


@pytest.mark.only("debian-13")
@pytest.mark.parametrize("who", ["worker", "master"])
def test_kills(deploys: Deploys, who: str, soak: bool) -> None:
    row = deploys.row(f"kill -9 of a {who}")
    took = []
    with deploys.counted(row, LEAST):
        for _ in range(10 if soak else 3):
            before = look(deploys.host)
            victims = before["workers"] if who == "worker" else {before["master"]}
            victim = min(victims)
            started = time.monotonic()
            deploys.host.check_output(f"kill -9 {victim}")
            wait_until(deploys.site.is_up, 30, "up again")
            took.append(time.monotonic() - started)
            whole = len(before["workers"])
            wait_until(lambda gone=victim, whole=whole: len(look(deploys.host)["workers"] - {gone}) == whole, 30, "all")
            time.sleep(1)
            row.count += 1
    row.note = f"back in {max(took):.1f} s"
    assert not [kind for kind in row.report.failed if kind.startswith("GET ")]
    assert row.report.failed.total() <= row.count * (CLIENTS + SLOW + SOCKETS)
    row.within("coming back", max(*took, row.report.silence), BACK_SECONDS)
    row.hold(lost=True)
