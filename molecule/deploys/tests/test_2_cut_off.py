"""Deploys that are cut off: one complete release is live with its own configuration, and the next run converges."""

import dataclasses
import itertools
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from deploying import HOME, Deploys, kill_all
from hosts import APP, look, play, wait_until
from killing import KEEP_PAYLOADS, PAYLOADS, Payload, spread

from ansible_collections.slipway.asgi.plugins.plugin_utils.sources import archive

pytestmark = pytest.mark.only("debian-13")

# Of a deploy; what is before only asks.
SHARES = [0.35 + 0.06 * step for step in range(11)]
BUSY = f"another deploy of {APP} is at work on this host"


@dataclasses.dataclass
class Prepared:
    """What the kills need.

    Attributes:
        source: the directory of the first release of `live`, which neither slot holds.
        present: what builds it.
        live: three releases, by their ids, each with what brings it live; one after the other, each finds the idle slot
            with another release, another configuration and other units.
        previous: what goes back to the one before.
        reloaded: what makes the workers three.
        took: the seconds that a deploy of new code takes.
    """

    source: Path
    present: Payload
    live: dict[str, Payload]
    previous: Payload
    reloaded: Payload
    took: float


@pytest.fixture(scope="module")
def prepared(deploys: Deploys) -> Iterator[Prepared]:
    """strace, and payloads of all states; none is left behind, for they hold the secrets."""
    deploys.host.check_output("apt-get -qq update && apt-get -qq install --no-install-recommends strace >/dev/null")
    sources, builds, live = [], [], {}
    for seconds in (20, 21, 22):
        started = time.monotonic()
        deploys.deploy(**(wanted := deploys.release()), ready_seconds=seconds, ansible=KEEP_PAYLOADS)
        sources.append(Path(wanted["source"]["path"]))
        builds.append(Payload(deploys.host, "release", '"state": "present"'))
        took = time.monotonic() - started
        live[deploys.whole()["release"]] = Payload(deploys.host, "release", '"state": "live"')
    deploys.deploy(playbook="rollback", ansible=KEEP_PAYLOADS)
    previous = Payload(deploys.host, "release", '"state": "previous"')
    layer = deploys.layer(workers=3)
    play(deploys.site.container, inventories=(layer,), playbook="reload", environment=KEEP_PAYLOADS)
    reloaded = Payload(deploys.host, "release", '"state": "reloaded"')
    yield Prepared(sources[0], builds[0], live, previous, reloaded, took)
    deploys.host.check_output(f"rm -rf {PAYLOADS}/* /root/*.py /root/source.tar /root/calls")


class Kills:
    """A row that counts at how many of some points a kill did no harm.

    Args:
        deploys: the host.
        state: what the module is asked for.
        calls: how many changing calls there are in all.
        points: how many of them are tried.
    """

    def __init__(self, deploys: Deploys, state: str, calls: int, points: int) -> None:
        self.row = deploys.row(f"SIGKILL to the module at a system call, state: {state}")
        self.row.count, self.row.note = f"0 of {points}", f"{calls} calls in all"
        self.points, self.passed = points, 0

    @staticmethod
    def cut_off(payload: Payload, calls: Sequence[tuple[str, int]], point: int, prepare: Callable[[], object]) -> None:
        """Prepare the host and kill the module at a call, or else at the one before: it probes as often as it must."""
        for call in reversed(calls[max(0, point - 9) : point + 1]):
            prepare()
            if payload.cut_off(call):
                return
        raise AssertionError(f"came to its end before call {point} and the nine before it")

    def harmless(self) -> None:
        """Count a kill that did no harm."""
        self.passed += 1
        self.row.count = f"{self.passed} of {self.points}"

    def hold(self) -> None:
        """Insist that none did harm."""
        self.row.passed = self.passed == self.points
        assert self.row.passed, self.row.count


def test_kills_of_present(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    sent = deploys.directory / "source.tar"
    archive(prepared.source, sent)
    subprocess.run(["docker", "cp", "--quiet", str(sent), f"{deploys.site.container}:/root/source.tar"], check=True)
    target = deploys.host.check_output(f"grep -o '{PAYLOADS}/[^\"]*/source.tar' {prepared.present.path} | head -1")
    # A build takes away what was sent with it.
    send = f"mkdir -p $(dirname {target}) && cp /root/source.tar {target}"
    afresh = f"rm -rf {HOME}/releases/{next(iter(prepared.live))} && {send}"
    deploys.host.check_output(afresh)
    calls = prepared.present.calls()
    before = deploys.footprint()
    points = spread(range(len(calls)), None if soak else 2)
    kills = Kills(deploys, "present", len(calls), len(points))
    for point in points:
        kills.cut_off(prepared.present, calls, point, lambda: deploys.host.check_output(afresh))
        assert deploys.footprint() == before
        deploys.host.check_output(send)
        prepared.present.run()
        assert not prepared.present.run()["changed"]
        assert deploys.footprint() == before
        kills.harmless()
    kills.hold()
    deploys.whole()


def test_kills_of_live(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    calls = {release: payload.calls() for release, payload in prepared.live.items()}
    least = min(map(len, calls.values()))
    points = spread(range(least), None if soak else 3)
    kills = Kills(deploys, "live", least, len(points))
    other = prepared.live[deploys.whole()["release"]]
    for point, wanted in zip(points, itertools.cycle(prepared.live), strict=False):
        payload = prepared.live[wanted]
        kills.cut_off(payload, calls[wanted], point, other.run)
        deploys.whole()
        payload.run()
        assert deploys.whole()["release"] == wanted
        assert not payload.run()["changed"]
        kills.harmless()
        other = payload
    kills.hold()


def test_kills_of_previous(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    *_, before, last = prepared.live.values()

    def there() -> str:
        last.run()
        return str(deploys.whole()["release"])

    before.run()
    unwanted = there()
    calls = prepared.previous.calls()
    points = spread(range(len(calls)), None if soak else 2)
    kills = Kills(deploys, "previous", len(calls), len(points))
    for point in points:
        kills.cut_off(prepared.previous, calls, point, there)
        # What came to its end but for the report is not asked for again: it would go back further.
        if deploys.whole()["release"] == unwanted or deploys.host.file(f"{HOME}/switching").exists:
            prepared.previous.run()
        assert deploys.whole()["release"] != unwanted
        kills.harmless()
    kills.hold()


def test_kills_of_reloaded(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    usual = prepared.live[deploys.whole()["release"]]

    def workers(count: int) -> None:
        wait_until(lambda: len(look(deploys.host)["workers"]) == count, 30, f"{count} workers")

    def prepare() -> None:
        usual.run()
        workers(2)

    def counted() -> list[tuple[str, int]]:
        prepare()
        calls = prepared.reloaded.calls()
        workers(3)
        return calls

    # The first one prunes what others have left.
    calls = min(counted(), counted(), key=len)
    points = spread(range(len(calls)), None if soak else 2)
    kills = Kills(deploys, "reloaded", len(calls), len(points))
    for point in points:
        kills.cut_off(prepared.reloaded, calls, point, prepare)
        deploys.whole()
        prepared.reloaded.run()
        workers(3)
        deploys.whole()
        kills.harmless()
    kills.hold()
    usual.run()


# --- the controller, the host, another deploy


def test_the_controller_dies(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    row = deploys.row("the controller dies in mid-deploy")
    # Once is in the middle of the switch.
    moments = [prepared.took * share for share in (SHARES if soak else SHARES[6:7])]
    for moment in moments:
        wanted = deploys.release()
        running = deploys.begin(**wanted)
        time.sleep(moment)
        kill_all(running)
        deploys.whole()
        # What it had started on the host may still be at work, and lets go of the lock at its end.
        deploys.host.check_output(f"flock --timeout 60 {HOME}/lock true")
        deploys.whole()
        deploys.deploy(**wanted)
        assert deploys.whole()["greeting"] == wanted["environment"]["GREETING"]
        row.count = f"{moments.index(moment) + 1} of {len(moments)}"
    row.passed = True


def test_the_host_restarts(deploys: Deploys, prepared: Prepared, soak: bool) -> None:
    row = deploys.row("the host restarts in mid-deploy")
    up: list[float] = []
    moments = [prepared.took * share for share in (SHARES if soak else SHARES[6:7])]
    for moment in moments:
        wanted = deploys.release()
        running = deploys.begin(**wanted)
        time.sleep(moment)
        subprocess.run(["docker", "restart", "--time", "0", deploys.site.container], check=True, capture_output=True)
        started = time.monotonic()
        kill_all(running)
        wait_until(deploys.site.is_up, 60, "up by itself")
        up.append(time.monotonic() - started)
        deploys.host.check_output("systemctl is-system-running --wait")
        deploys.whole()
        deploys.deploy(**wanted)
        assert deploys.whole()["greeting"] == wanted["environment"]["GREETING"]
        row.count = f"{len(up)} of {len(moments)}"
        row.note = f"up by itself in {max(up):.1f} s"
    row.passed = True


def test_two_deploys_at_once(deploys: Deploys, soak: bool) -> None:
    row = deploys.row("two deploys at once")
    outcomes: Counter[str] = Counter()
    for _ in range(3 if soak else 1):
        wanted = [deploys.release(), deploys.release()]
        running = [deploys.begin(**options) for options in wanted]
        outputs = [deploy.communicate()[0] for deploy in running]
        for deploy, output in zip(running, outputs, strict=True):
            assert deploy.returncode == 0 or BUSY in output, output
            outcomes["waited" if deploy.returncode == 0 else "refused"] += 1
        assert any(deploy.returncode == 0 for deploy in running)
        said = deploys.whole()
        assert said["greeting"] in [options["environment"]["GREETING"] for options in wanted]
        row.count = int(row.count) + 1
    row.note = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    row.passed = True


@pytest.mark.soak
def test_a_deploy_that_waits_too_long_is_refused(deploys: Deploys) -> None:
    row = deploys.row("a deploy while another one does not end")
    before = deploys.footprint()
    command = ["docker", "exec", "-i", deploys.site.container, "flock", f"{HOME}/lock", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as holding:
        output = deploys.refused(**deploys.release())
        holding.communicate()
    assert BUSY in output
    assert deploys.footprint() == before
    row.count, row.note, row.passed = 1, "refused", True
