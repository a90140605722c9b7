"""How long it takes to make a host and to change it, against the same by hand and against a play that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .figures import Bars, Spread, Table, tasks
from .hosts import AWAY, CREATE, HERE, ROOT, Failed, Host, Run, packed, play, sample_app, tell, timed, unchanged

BARE, AGAIN, CODE, DEPENDENCY, ROLLBACK = (
    "a bare host",
    "no change",
    "changed code",
    "a new dependency",
    "rollback",
)
STEPS = (BARE, AGAIN, CODE, DEPENDENCY, ROLLBACK)
# One for each round: small, needed by nothing in the sample app, and pinned for the controller.
PACKAGES = ("iniconfig", "pluggy", "pathspec", "platformdirs", "packaging")
# Of these it is told where the time goes.
DETAILED = (BARE, AGAIN, CODE)
TOP = 10
LEAST = 0.01
# What by_hand.sh finds beside it.
_FILES = {
    "by_hand.sh": HERE / "by_hand.sh",
    "uv.txt": ROOT / "roles/python/files/uv.txt",
    "server.txt": ROOT / "roles/app/files/server/gunicorn.txt",
}


class Measured:
    """Both hosts, and how long each step took on them.

    Attributes:
        seconds: by step, a list of rounds for ``slipway``, ``by_hand`` and ``facts``.
        tasks: by step, the seconds of each of Ansible's tasks in each round.
    """

    def __init__(self, host: Host, by_hand: Host) -> None:
        self.host, self.by_hand = host, by_hand
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self.tasks: dict[str, list[dict[str, float]]] = {}

    def play(self, playbook: str, version: int, packages: tuple[str, ...] = ()) -> Callable[[], str]:
        """A run of a playbook that brings a version of the sample app."""
        layer = {"guestbook": {"source": {"path": str(sample_app(version, packages))}}}
        variables = {"slipway_app_overrides_bench": layer}
        return lambda: play(f"playbooks/{playbook}.yml", limit=[self.host.name], variables=variables)

    def shell(self, verb: str, version: int, packages: tuple[str, ...] = ()) -> Callable[[], str]:
        """The same by hand."""
        source = packed(sample_app(version, packages))
        return lambda: self.by_hand.run(f"cat >/root/bench/source.tar && /root/bench/by_hand.sh {verb}", source)

    def step(self, name: str, ours: Callable[[], str], theirs: Callable[[], str]) -> None:
        """Time a step in both ways, and a play that only gathers facts."""
        seconds, printed = timed(ours)
        if name == AGAIN:
            unchanged(printed)
        took = {
            "slipway": seconds,
            "by_hand": timed(theirs)[0],
            "facts": timed(lambda: play("bench/measure/facts.yml", limit=[self.host.name]))[0],
        }
        for who, each in took.items():
            self.seconds.setdefault(name, {}).setdefault(who, []).append(each)
        self.tasks.setdefault(name, []).append(tasks(printed))

    def prepare(self) -> None:
        """Put on the other host what is there before anybody types."""
        self.by_hand.trust_our_cas()
        for name, path in _FILES.items():
            self.by_hand.send(f"/root/bench/{name}", path.read_text())
        self.by_hand.run("chmod +x /root/bench/by_hand.sh")

    def change(self, rounds: int) -> None:
        """All steps after the first, on hosts that are as it left them."""
        version = 0
        packages: tuple[str, ...] = ()
        for number in range(rounds):
            tell(f"changes, round {number + 1}")
            self.step(AGAIN, self.play("site", version, packages), self.shell("bare", version, packages))
            version += 1
            self.step(CODE, self.play("deploy", version, packages), self.shell("deploy", version, packages))
            version, packages = version + 1, PACKAGES[: number + 1]
            self.step(DEPENDENCY, self.play("deploy", version, packages), self.shell("deploy", version, packages))
            back = self.shell("rollback", version, packages)
            self.step(ROLLBACK, self.play("rollback", version, packages), back)
            # Forward again, so that the next round finds what it wants.
            self.play("deploy", version, packages)()
            back()


def measure(run: Run) -> dict[str, Any]:
    """Measure, and return seconds and tasks of each step."""
    with run.hosts("slipway-bench-provisioned", "slipway-bench-by-hand") as (host, by_hand):
        measured = Measured(host, by_hand)
        for number in range(run.pick(3, 1)):
            with run.attempt(f"{BARE}, round {number + 1}"):
                if number:
                    play(*AWAY, *CREATE, limit=[host.name, by_hand.name])
                measured.prepare()
                measured.step(BARE, measured.play("site", 0), measured.shell("bare", 0))
        # Each round begins with what the one before has left, so that the first that fails is the last.
        with run.attempt("changes"):
            measured.change(run.pick(len(PACKAGES), 1))
        if not measured.seconds:
            raise Failed("no step could be measured")
        return {"seconds": measured.seconds, "tasks": measured.tasks}


def shares(rounds: list[dict[str, float]], seconds: list[float]) -> dict[str, Spread]:
    """The share of each task in the time of its run, the longest first."""
    names = dict.fromkeys(name for each in rounds for name in each)
    found = {
        name: Spread.of(each.get(name, 0.0) / whole for each, whole in zip(rounds, seconds, strict=True))
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].median))


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of this part."""
    seconds = found["seconds"]
    yield Table(
        "How long a run takes",
        "How long a run takes, as a ratio to [by_hand.sh](../bench/measure/by_hand.sh), which does the same without "
        "all that Slipway is for, and to a play that only gathers facts. A bare host and no change are "
        "`playbooks/site.yml`, the others `playbooks/deploy.yml` and `playbooks/rollback.yml`. By hand, no change is "
        "the whole script once more, since it cannot know.",
        ("what", "against by hand", "against a play that gathers facts", "rounds"),
        [
            (
                step,
                str(Spread.ratios(took["slipway"], took["by_hand"])),
                str(Spread.ratios(took["slipway"], took["facts"])),
                str(len(took["slipway"])),
            )
            for step, took in seconds.items()
        ],
        plot="provisioning",
    )
    rows = []
    for step in DETAILED:
        if step not in seconds:
            continue
        longest = list(shares(found["tasks"][step], seconds[step]["slipway"]).items())[:TOP]
        rows += [
            (step, task, f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%})")
            for task, share in longest
            if share.median >= LEAST
        ]
    yield Table(
        "Where the time goes",
        f"The {TOP} tasks that take longest, unless they take less than {LEAST:.0%}, by their share in the time of the "
        "whole run. What is missing to the whole is Ansible's own start, and all other tasks.",
        ("what", "task", "share"),
        rows,
    )


def plots(found: Mapping[str, Any]) -> Iterator[Bars]:
    """The plot of this part."""
    spreads = {step: Spread.ratios(took["slipway"], took["by_hand"]) for step, took in found["seconds"].items()}
    bars = {step: ([spread.median], spread) for step, spread in spreads.items()}
    yield Bars("provisioning", "How long a run takes", "ratio to the same by hand", ("",), bars, 1.0, "by hand")
