"""What tests of faults share: the load that goes on meanwhile, what a run says, and the table of both."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from deploying import Deploys
from hosts import APP, DOMAIN, aligned, inside, play, wait_until
from load import Load, Report

# Light: what is asked is whether the site is there.
CLIENTS = 4
PACE = 0.2
# A row with fewer requests has shown nothing.
LEAST = 50
# The quotes are doubled where Ansible prints them as YAML.
FULL = r"No space left on device(: '+[^']+'+)?"


@dataclasses.dataclass
class Fault:
    """One row of the table.

    Attributes:
        what: what was wrong.
        how: how it came to be.
        said: what a run said of it.
        report: what the load saw meanwhile.
        away: whether it is the fault itself that takes the site away, until the next run.
        converged: whether the next run brought what was wanted, and one more had nothing to do.
    """

    what: str
    how: str
    said: str = ""
    report: Report = dataclasses.field(default_factory=Report)
    away: bool = False
    converged: bool = False

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        lost = self.report.lost.total()
        return (
            self.what,
            self.how,
            self.said or "-",
            str(self.report.requests),
            f"{lost} until the run" if self.away and lost else str(lost),
            "yes" if self.converged else "NO",
        )


HEAD = ("fault", "injected", "the run said", "requests", "failed", "converged")
# In the order of the tests.
ROWS: list[Fault] = []
# The options of the app that hold from one module of tests to the next.
OPTIONS: dict[str, Any] = {}


def table() -> Iterator[str]:
    """The lines of the table."""
    return aligned([HEAD, *(row.cells() for row in ROWS)])


def told(output: str) -> str:
    """What a run sums up of the app."""
    found = re.search(rf"{APP}: https://\S+ (serves [^\n\"']+)", output)
    assert found, output
    return found[1]


class Faults:
    """The host, what is deployed to it, and the load.

    Attributes:
        deploys: the deploys.
        load: the load.
    """

    def __init__(self, deploys: Deploys) -> None:
        self.deploys = deploys
        deploys.options = OPTIONS
        site = deploys.site
        self.container = site.container
        self.load = Load(site.address, site.certificate, DOMAIN, clients=CLIENTS, slow=0, pace=PACE)

    def inside(self, script: str, given: str | bytes = "") -> str:
        """Run a script on the host as root."""
        return inside(self.container, script, given)

    @contextlib.contextmanager
    def fault(self, what: str, how: str, away: bool = False) -> Iterator[Fault]:
        """A new row: meanwhile the site goes on, or is away where the fault itself takes it away."""
        row = Fault(what, how, away=away)
        ROWS.append(row)
        self.load.take()
        try:
            yield row
            self.serves(row)
        finally:
            row.report.add(self.load.take())
        assert away or not row.report.lost, f"{what}: {row.report}"

    def serves(self, row: Fault) -> None:
        """Insist that from now on nothing is lost, until a row has its requests."""
        row.report.add(self.load.take())
        missing = max(CLIENTS, LEAST - row.report.requests)
        wait_until(lambda: self.load.report.requests >= missing, 60, f"{missing} requests")
        assert not self.load.report.lost, f"{row.what}: {self.load.report}"

    def refused(
        self, reason: str, *arguments: str, playbook: str = "deploy", moved: bool = False, **options: Any
    ) -> str:
        """Run a playbook that must fail, and insist that what is live is whole and as it was.

        Args:
            reason: what it must say, a regular expression over its words in one line.
            arguments: more arguments for ansible-playbook.
            playbook: its name.
            moved: whether it is the new release that is live by then; else what is live must not have changed.
            options: the app's options, in this run only.

        Returns:
            What it said of the reason.
        """
        before = self.deploys.footprint()
        layer = self.deploys.layer(**options)
        try:
            play(self.container, *arguments, inventories=(layer,), playbook=playbook)
        except AssertionError as error:
            said = " ".join(str(error).split())
        else:
            raise AssertionError(f"was not refused: {options}")
        found = re.search(reason, said)
        assert found, said
        assert (self.deploys.footprint() != before) == moved
        # The slot before does not drain yet: nginx may go on asking it over what it has kept open.
        if not moved:
            self.deploys.whole()
        return found[0]

    def converges(self, *rows: Fault, playbook: str = "deploy", **options: Any) -> str:
        """Run a playbook with what is wanted, insist that it is live, and that one more run changes nothing.

        Args:
            rows: of which it is said that they converged.
            playbook: its name.
            options: the app's options, which then hold.

        Returns:
            What the first run printed.
        """
        output = self.deploys.deploy(playbook=playbook, **options)
        said = self.deploys.whole()
        assert said["greeting"] == OPTIONS.get("environment", {"GREETING": "of 1.0.0"})["GREETING"]
        again = self.deploys.deploy(playbook=playbook)
        assert " changed=0 " in again, again
        for row in rows:
            row.converged = True
        return output
