"""What tests of hardening share: the tables of what an intruder tried, and of where a secret was looked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from hosts import aligned

# An attempt's outcome: got, denied or error, with what there is to say.
Outcome = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Tried:
    """One row of the table of attempts.

    Attributes:
        what: the attempt.
        as_root: what came of it in a unit without a sandbox.
        as_user: the same as the app's own user.
        open: in an app with a sandbox as it is by default.
        local: in one with ``network: local``.
        lax: in one with all switches on.
        allowed: whether the default is to let it happen, so that only ``network: local`` denies it.
    """

    what: str
    as_root: Outcome
    as_user: Outcome
    open: Outcome
    local: Outcome
    lax: Outcome
    allowed: bool

    @property
    def passed(self) -> bool:
        """Whether it can be done here, and is denied."""
        denied = "got" in self.open if self.allowed else "denied" in self.open
        return "got" in self.as_root and denied and "denied" in self.local

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        outcomes = (self.as_root, self.as_user, self.open, self.local, self.lax)
        return (self.what, *map(_said, outcomes), "passed" if self.passed else "FAILED")


def _said(outcome: Outcome) -> str:
    ((kind, text),) = outcome.items()
    return text if kind == "got" else f"{kind}: {text.splitlines()[-1]}"


@dataclasses.dataclass(frozen=True)
class Looked:
    """One row of the table of places where a secret might be.

    Attributes:
        where: the place.
        count: how many files or outputs there were.
        size: how many bytes in all.
        found: in how many the secret was, outside the one place where it belongs.
    """

    where: str
    count: int
    size: int
    found: int

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        verdict = "FAILED" if self.found else "passed"
        return (self.where, str(self.count), f"{self.size / 1e6:.1f} MB", str(self.found), verdict)


TRIED_HEAD = ("attempt", "root, unsandboxed", "its user, unsandboxed", "app", "network: local", "all switches on", "")
LOOKED_HEAD = ("where a secret was looked for", "files", "size", "found", "")
# In the order of the tests.
TRIED: list[Tried] = []
LOOKED: list[Looked] = []


def tables() -> Iterator[str]:
    """The lines of both tables."""
    for head, rows in ((TRIED_HEAD, TRIED), (LOOKED_HEAD, LOOKED)):
        if rows:
            yield from aligned([head, *(row.cells() for row in rows)])
            yield ""
