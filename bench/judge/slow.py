"""Clients that send slowly, to hold what others need, and what others notice of it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import ssl
import statistics
import time
from typing import Any

from .wire import NAME

# How many of each kind there are at any time: one that is closed comes back at once.
KINDS = {"silent": 100, "with slow headers": 200, "with slow bodies": 200}
BEFORE_SECONDS, ATTACK_SECONDS, PACE = 5.0, 30.0, 3.0
OTHERS, OTHERS_PACE = 4, 0.1
# nginx gives 15 s for the headers of a request, and looks at its clocks when it comes to it.
HEADER_SECONDS = 18.0
# What others wait for an answer at the most, on a machine that does other things too.
OTHERS_SECONDS = 2.0


@dataclasses.dataclass
class Report:
    """What was seen.

    Attributes:
        before: the seconds that answers to others took, before the attack.
        during: the same while it went on.
        failed: how many others got no answer, by reason.
        held: how many connections were open, at the most.
        opened: how many were opened, by kind.
        lives: the seconds that those lived which the host closed, by kind.
    """

    before: list[float] = dataclasses.field(default_factory=list)
    during: list[float] = dataclasses.field(default_factory=list)
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    held: int = 0
    opened: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    lives: dict[str, list[float]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    @property
    def bounded(self) -> bool:
        """Whether nobody held a connection by saying too little, although all tried to."""
        quick = all(max(self.lives[kind], default=99) < HEADER_SECONDS for kind in list(KINDS)[:2])
        return quick and self.held == sum(KINDS.values())

    @property
    def harmless(self) -> bool:
        """Whether others were served, and soon."""
        return not self.failed and max(self.during, default=99) < OTHERS_SECONDS


def times(seconds: list[float]) -> str:
    """Times of answers, for a reader."""
    cuts = statistics.quantiles(seconds, n=100)
    return (
        f"median {cuts[49] * 1000:.0f} ms, 99 % within {cuts[98] * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms"
    )


class Attack:
    """All slow clients, and the others beside them.

    Args:
        port: where the host's port 443 is on this machine.
        other: the name that the others ask, and the path.
        root: the only authority that they trust, in PEM.
    """

    def __init__(self, port: int, other: tuple[str, str], root: str) -> None:
        self.port, self.other = port, other
        self.tls = ssl.create_default_context(cadata=root)
        self.report = Report()
        self.times = self.report.before
        self.now = 0

    async def run(self) -> Report:
        """Ask, then attack and go on asking."""
        others = [asyncio.create_task(self._others()) for _ in range(OTHERS)]
        await asyncio.sleep(BEFORE_SECONDS)
        slow = []
        for kind, count in KINDS.items():
            for _ in range(count):
                slow.append(asyncio.create_task(self._slow(kind)))
                await asyncio.sleep(0.005)
        self.times = self.report.during
        await asyncio.sleep(ATTACK_SECONDS)
        for task in [*others, *slow]:
            task.cancel()
        await asyncio.gather(*others, *slow, return_exceptions=True)
        return self.report

    async def _others(self) -> None:
        name, path = self.other
        while True:
            start, into = time.monotonic(), self.times
            try:
                async with asyncio.timeout(20):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self.port, ssl=self.tls, server_hostname=name
                    )
                    try:
                        writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                        status = (await reader.read()).split(b" ", 2)[1].decode()
                    finally:
                        writer.close()
                if status != "200":
                    self.report.failed[f"status {status}"] += 1
            except (OSError, TimeoutError, IndexError) as error:
                self.report.failed[type(error).__name__] += 1
            else:
                into.append(time.monotonic() - start)
            await asyncio.sleep(OTHERS_PACE)

    async def _slow(self, kind: str) -> None:
        while True:
            start = time.monotonic()
            with contextlib.suppress(OSError):
                tls: dict[str, Any] = {} if kind == "silent" else {"ssl": self.tls, "server_hostname": NAME}
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **tls)
                self.report.opened[kind] += 1
                self.now += 1
                self.report.held = max(self.report.held, self.now)
                try:
                    await self._drip(kind, reader, writer)
                finally:
                    self.now -= 1
                    writer.close()
                self.report.lives[kind].append(time.monotonic() - start)

    @staticmethod
    async def _drip(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send as little as holds a connection, until the host closes it."""
        closed = asyncio.create_task(reader.read())
        try:
            if kind == "with slow headers":
                writer.write(f"GET /once HTTP/1.1\r\nHost: {NAME}\r\n".encode())
            elif kind == "with slow bodies":
                writer.write(f"POST /once HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100000\r\n\r\n".encode())
            while not (await asyncio.wait([closed], timeout=PACE))[0]:
                if kind != "silent":
                    writer.write(b"X: y\r\n")
            closed.exception()
        finally:
            closed.cancel()


def attack(port: int, other: tuple[str, str], root: str) -> Report:
    """Attack a host for half a minute, and return what others noticed."""
    return asyncio.run(Attack(port, other, root).run())
