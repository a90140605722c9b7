"""A load that counts what a deploy costs: every failure by kind, the longest silence, and who served.

As a program it runs against an address until it is interrupted or the time is up:

    .venv/bin/python bench/load.py https://localhost:8443 --certificate .cache/demo.pem --seconds 30

Tests run the same in a thread of its own, beside the deploy that they watch.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import ssl
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from urllib.parse import urlsplit

import websockets

REQUEST_SECONDS = 60.0
WHO = "/api/about"
ECHO = "/api/echo"
SLOW = "/api/slow"
# What a WebSocket is closed with by a server that goes while another one is there.
SERVICE_RESTART = 1012
# What a client sees whose idle connection nginx has closed just when it sends its next request; it may send it again.
CLOSED_WHILE_IDLE = ("IncompleteReadError", "ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError")


@dataclasses.dataclass
class Life:
    """One WebSocket that the server closed; times are seconds of the epoch.

    Attributes:
        opened: when it was open.
        closed: when the server closed it.
        code: by which code.
        back: when the next one was open in its place, 0 as long as none is.
        release: what the next one said that it is served by.
    """

    opened: float
    closed: float
    code: int
    back: float = 0.0
    release: str = ""


@dataclasses.dataclass
class Report:
    """What was seen.

    Attributes:
        requests: how many were answered or failed.
        failed: how many failed, by kind.
        silence: the longest time, in seconds, in which none of them was answered.
        served: how many of those that say so were answered by each release and slot.
        lives: each WebSocket that the server closed.
    """

    requests: int = 0
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    silence: float = 0.0
    served: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    lives: list[Life] = dataclasses.field(default_factory=list)

    @property
    def lost(self) -> collections.Counter[str]:
        """What failed, by kind, without the connections that nginx closed while they were idle, as a reload lets it."""
        idle = {kind for kind in self.failed if " kept: " in kind and kind.endswith(CLOSED_WHILE_IDLE)}
        return collections.Counter({kind: count for kind, count in self.failed.items() if kind not in idle})

    def add(self, other: Report) -> None:
        """Count what another report counted as well."""
        self.requests += other.requests
        self.failed += other.failed
        self.silence = max(self.silence, other.silence)
        self.served += other.served
        self.lives += other.lives

    def failures(self) -> str:
        """What failed, for a reader."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.failed.items())) or "0"

    def __str__(self) -> str:
        served = ", ".join(f"{release} {slot} {count}" for (release, slot), count in sorted(self.served.items()))
        closes = collections.Counter(life.code for life in self.lives)
        closed = "".join(f"; {count} WebSockets closed with {code}" for code, count in sorted(closes.items()))
        silence = f"longest silence {self.silence * 1000:.0f} ms"
        return f"{self.requests} requests, failed: {self.failures()}; {silence}; {served}{closed}"


class Connection:
    """HTTP/1.1 over TLS to one address, kept between requests if that is wanted and the server agrees."""

    def __init__(self, address: str, context: ssl.SSLContext, name: str, keep: bool) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "", parts.port or 443
        self.context, self.name, self.keep = context, name, keep
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request, never twice, and return status and body."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(
                self.host, self.port, ssl=self.context, server_hostname=self.name
            )
        reader, writer = self.streams
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.name}\r\nContent-Length: {len(body)}\r\n"
        keep = False
        try:
            closing = "" if self.keep else "Connection: close\r\n"
            writer.write(f"{head}{closing}\r\n".encode() + body)
            status, headers = await self._head(reader)
            content = await self._body(reader, headers)
            keep = self.keep and headers.get("connection", "").lower() != "close"
            return status, content
        finally:
            if not keep:
                self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self.streams:
            self.streams[1].close()
            self.streams = None

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, value in pairs}

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body


class Load:
    """Clients that ask again and again, in a thread of their own, between enter and exit.

    Args:
        address: where to connect to, such as ``https://127.0.0.1:8443``.
        certificate: the only certificate to trust, in PEM.
        name: the name that is asked for; the address's own where it is not given.
        clients: how many ask at once; half keep their connections, half make a TLS connection for each request, and
            half of each post.
        sockets: how many WebSockets are held open beside them.
        slow: how many slow downloads go on beside them.
        pace: the seconds from one question of a client to its next; 0 is as soon as it has its answer.
    """

    def __init__(
        self,
        address: str,
        certificate: str,
        name: str = "",
        *,
        clients: int = 32,
        sockets: int = 0,
        slow: int = 1,
        pace: float = 0.0,
    ) -> None:
        self.address = address
        self.name = name or urlsplit(address).hostname or ""
        self.context = ssl.create_default_context(cadata=certificate)
        self.clients, self.sockets, self.slow, self.pace = clients, sockets, slow, pace
        self.report = Report()
        self._last = time.monotonic()
        self._running = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._running = True
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        self._thread.join()
        if self._error and not error:
            raise self._error

    def take(self) -> Report:
        """What was seen since the start, or since it was taken before."""
        taken, self.report = self.report, Report()
        return taken

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
            raise

    async def _main(self) -> None:
        watchers = [asyncio.create_task(self._watch()) for _ in range(self.sockets)]
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.clients):
                tasks.create_task(self._ask(number))
            for _ in range(self.slow):
                tasks.create_task(self._download())
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def _ask(self, number: int) -> None:
        post, keep = number % 2 == 1, number % 4 < 2
        connection = Connection(self.address, self.context, self.name, keep)
        count = 0
        # Clients that ask in step would take the pause between their questions for silence.
        due = time.monotonic() + self.pace * number / self.clients
        while self._running:
            count += 1
            while (wait := due - time.monotonic()) < 0 < self.pace:
                due += self.pace
            await asyncio.sleep(wait)
            due += self.pace
            body = f"{number} {count}".encode() if post else b""
            with self._counted(f"{'POST' if post else 'GET'} {'kept' if keep else 'fresh'}"):
                async with asyncio.timeout(REQUEST_SECONDS):
                    status, answer = await connection.request("POST" if post else "GET", ECHO if post else WHO, body)
                if status != 200:
                    raise ValueError(f"status {status}")
                if post and answer != body:
                    raise ValueError("another answer than what was posted")
                if not post:
                    who = json.loads(answer)
                    self.report.served[who["release"], who["slot"]] += 1
        connection.close()

    async def _download(self) -> None:
        while self._running:
            connection = Connection(self.address, self.context, self.name, keep=False)
            with self._counted("slow GET"):
                async with asyncio.timeout(REQUEST_SECONDS):
                    status, answer = await connection.request("GET", SLOW)
                if status != 200 or not answer.endswith(b"end\n"):
                    raise ValueError(f"status {status}, {len(answer)} bytes")

    @contextlib.contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            why = str(error) if type(error) is ValueError else type(error).__name__
            self.report.failed[f"{kind}: {why}"] += 1
        else:
            now = time.monotonic()
            if self._running:
                self.report.silence = max(self.report.silence, now - self._last)
            self._last = now
        self.report.requests += 1

    async def _watch(self) -> None:
        """Hold a WebSocket open, and another one as soon as the server closes it."""
        parts = urlsplit(self.address)
        address = f"wss://{self.name}:{parts.port or 443}/ws"
        lost: Life | None = None
        while True:
            try:
                async with websockets.connect(address, host=parts.hostname, ssl=self.context, proxy=None) as connection:
                    opened = time.time()
                    first = json.loads(await connection.recv())
                    if lost:
                        lost.back, lost.release = opened, first["about"]["release"]
                    with contextlib.suppress(websockets.ConnectionClosedError):
                        async for _ in connection:
                            pass
                    lost = Life(opened, time.time(), connection.close_code or 0)
                    self.report.lives.append(lost)
                    if lost.code != SERVICE_RESTART:
                        self.report.failed[f"WebSocket: closed with {lost.code}"] += 1
            except (OSError, TimeoutError, websockets.WebSocketException) as error:
                self.report.failed[f"WebSocket: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)


def main() -> None:
    """Run a load and say each second what it counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--certificate", required=True, help="the only certificate to trust")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--sockets", type=int, default=4)
    parser.add_argument("--pace", type=float, default=0.0)
    options = parser.parse_args()
    with open(options.certificate, encoding="ascii") as file:
        certificate = file.read()
    deadline = time.monotonic() + options.seconds
    load = Load(options.address, certificate, clients=options.clients, sockets=options.sockets, pace=options.pace)
    with load, contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline:
            time.sleep(1)
            print(load.report, flush=True)
    print(load.report)


if __name__ == "__main__":
    main()
