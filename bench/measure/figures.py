"""Figures: what programs printed is read, many become one with a spread, and tables come of them."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of what was measured several times, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])

    @classmethod
    def ratios(cls, values: Sequence[float], base: Sequence[float]) -> Spread:
        """How many times the base it is, round by round: both were measured in the same rounds, one after the other."""
        return cls.of(value / other for value, other in zip(values, base, strict=True))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclasses.dataclass(frozen=True)
class Answers:
    """What came of a load.

    Attributes:
        requests: how many were answered, well or not, or failed.
        failed: how many had another status than 2xx or 3xx, or no answer.
    """

    requests: int
    failed: int


@dataclasses.dataclass(frozen=True)
class Bars:
    """A plot of horizontal bars, each the sum of its segments.

    Attributes:
        name: what its file is called, without an ending.
        title: what it shows.
        axis: what the lengths are.
        segments: the names of the segments; one without a name stands for all.
        bars: by label, the lengths of the segments and the whole with its spread.
        limit: a length that is marked, or 0.
        limited: what that is.
    """

    name: str
    title: str
    axis: str
    segments: Sequence[str]
    bars: Mapping[str, tuple[Sequence[float], Spread]]
    limit: float = 0.0
    limited: str = ""


@dataclasses.dataclass(frozen=True)
class Lines:
    """A plot of lines.

    Attributes:
        name: what its file is called, without an ending.
        title: what it shows.
        axes: what is along either axis.
        lines: by label, a spread for each place on the first axis.
        limit: a height that is marked, or 0.
        limited: what that is.
    """

    name: str
    title: str
    axes: tuple[str, str]
    lines: Mapping[str, Mapping[int, Spread]]
    limit: float = 0.0
    limited: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: its heading.
        text: what is to be known before one reads it, in Markdown.
        head: the names of its columns.
        rows: their cells.
        plot: the name of the plot that shows the same, without its ending.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: str = ""

    def lines(self) -> Iterator[str]:
        """The table in Markdown."""
        yield from ("", f"### {self.title}", "")
        yield from textwrap.wrap(self.text, 120, break_long_words=False, break_on_hyphens=False)
        yield ""
        if self.plot:
            yield from (f"![{self.title}](bench/{self.plot}.svg)", "")
        yield row(self.head)
        yield row(["---"] * len(self.head))
        yield from map(row, self.rows)


def row(cells: Iterable[str]) -> str:
    """One line of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def count(number: int) -> str:
    """A number for a reader."""
    return f"{number:,}"


# --- what programs print


def answers(printed: str) -> Answers:
    """What wrk says at the end of its load.

    Raises:
        ValueError: that is not what wrk prints.
    """
    found = re.search(r"^\s*(\d+) requests in [\d.]+(?:us|ms|s|m|h),", printed, re.MULTILINE)
    if not found:
        raise ValueError(f"wrk did not say how many requests there were: {printed}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
    broken = sum(map(int, errors.groups())) if errors else 0
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    # Of wrk's requests, those that broke off are none.
    return Answers(int(found[1]) + broken, broken + (int(status[1]) if status else 0))


def cpu(printed: str) -> dict[str, int]:
    """CPU time by control group, in microseconds, from lines of ``grep -H usage_usec`` over files cpu.stat.

    The host as a whole has the name "".
    """
    lines = re.findall(r"^/sys/fs/cgroup/?(.*?)/?cpu\.stat:usage_usec (\d+)$", printed, re.MULTILINE)
    return {group: int(microseconds) for group, microseconds in lines}


def used(before: Mapping[str, int], after: Mapping[str, int], units: Mapping[str, str]) -> dict[str, int]:
    """CPU time that groups of units took from one look to the next, in microseconds.

    Args:
        before: the first look.
        after: the second.
        units: patterns of units' names, by what they are called together.

    Returns:
        What each came to, and ``host``, which is all that was done on the host.
    """
    took = {group: total - before.get(group, 0) for group, total in after.items()}
    # A slice is the sum of what lies in it.
    services = {group.rpartition("/")[2]: spent for group, spent in took.items() if group.endswith(".service")}
    found = {
        name: sum(spent for unit, spent in services.items() if fnmatch.fnmatchcase(unit, pattern))
        for name, pattern in units.items()
    }
    return {**found, "host": took[""]}


def tasks(printed: str) -> dict[str, float]:
    """Seconds by task, longest first, from the callback ``ansible.posix.profile_tasks``; like names are added up."""
    recap = printed.rpartition("\nTASKS RECAP ")[2]
    found: dict[str, float] = {}
    for name, seconds in re.findall(r"^(.+?) -+ (\d+\.\d+)s$", recap, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(seconds)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def changes(printed: str) -> int:
    """How many tasks changed something, by the recap of a playbook."""
    return sum(map(int, re.findall(r"\bchanged=(\d+)", printed)))


def memory(printed: str) -> tuple[int, int]:
    """How many processes there are, and their proportional shares of memory in KiB, from lines of smaps_rollup."""
    shares = re.findall(r"^Pss:\s+(\d+) kB$", printed, re.MULTILINE)
    return len(shares), sum(map(int, shares))


def pinned(requirements: str, package: str) -> str:
    """The lines of hashed requirements that pin a package.

    Raises:
        ValueError: none does.
    """
    found = re.search(rf"^{re.escape(package)}==(?:.*\\\n)*.*--hash=\S+$\n?", requirements, re.MULTILINE)
    if not found:
        raise ValueError(f"{package} is not pinned")
    return found[0].rstrip("\n") + "\n"


def per_request(rounds: Sequence[Mapping[str, Any]], *names: str) -> list[float]:
    """CPU time for each request in microseconds, round by round, of groups of units together."""
    return [sum(each["cpu"][name] for name in names) / each["requests"] for each in rounds]


def segments(rounds: Sequence[Mapping[str, Any]], names: Sequence[str], whole: float) -> list[float]:
    """How a length is shared out among groups of units, by their CPU time."""
    medians = [Spread.of(per_request(rounds, name)).median for name in names]
    return [whole * median / sum(medians) for median in medians]


def total(rounds: Iterable[Mapping[str, Any]], name: str) -> int:
    """The sum of a count over all rounds."""
    return sum(each[name] for each in rounds)
