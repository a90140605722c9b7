"""A client that treats its server as nginx treats an upstream, but never repeats a request."""

import asyncio
import base64
import collections
import os
import time
from types import TracebackType
from typing import Self


class Answer:
    """What came back: status, headers (lower case), body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Client:
    """A pool of kept connections: last in, first out; closed after `idle` seconds, as nginx does."""

    def __init__(self, path: str, idle: float = 1.0) -> None:
        self.path, self.idle = path, idle
        self.pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def request(self, method: str = "GET", path: str = "/", body: bytes = b"", fresh: bool = False) -> Answer:
        """Send one request, over a kept connection if there is one and not `fresh`."""
        self._drop_dead()
        if fresh or not self.pool:
            reader, writer = await asyncio.open_unix_connection(self.path)
        else:
            reader, writer, _ = self.pool.pop()
        keep = False
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: app\r\nX-Forwarded-Proto: https\r\n"
                f"X-Forwarded-For: 192.0.2.7\r\nX-Request-ID: id-of{path}\r\nContent-Length: {len(body)}\r\n"
                f"{'Connection: close' if fresh else 'X-Kept: 1'}\r\n\r\n".encode()
                + body
            )
            answer = await self._answer(reader)
            keep = not fresh and answer.headers.get("connection") != "close"
            return answer
        finally:
            if keep:
                self.pool.append((reader, writer, time.monotonic()))
            else:
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        status, headers = await read_head(reader)
        if "content-length" in headers:
            return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return Answer(status, headers, body)

    def _drop_dead(self) -> None:
        alive = []
        for reader, writer, since in self.pool:
            if reader.at_eof() or time.monotonic() - since > self.idle:
                writer.close()
            else:
                alive.append((reader, writer, since))
        self.pool = alive

    async def tidy(self) -> None:
        """Close idle connections in time, for as long as this runs."""
        while True:
            self._drop_dead()
            await asyncio.sleep(0.05)


class WebSocket:
    """Enough of RFC 6455 to send a text, and to see the frames and the close code that come."""

    @classmethod
    async def open(cls, path: str) -> Self:
        """Connect and shake hands."""
        self = cls()
        self.reader, self.writer = await asyncio.open_unix_connection(path)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status, _ = await read_head(self.reader)
        assert status == 101
        return self

    async def echo(self, text: str) -> str:
        """Send a text, return what is answered; a close frame is answered as `close CODE`."""
        data = text.encode()
        self.writer.write(bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data)
        return await self.receive()

    async def receive(self) -> str:
        """Return the next text, or `close CODE`."""
        while True:
            opcode, length = await self.reader.readexactly(2)
            data = await self.reader.readexactly(length)
            if opcode & 15 == 8:
                return f"close {int.from_bytes(data[:2], 'big')}"
            if opcode & 15 == 1:
                return data.decode()


class Load:
    """Requests without a pause, half of them over kept connections, half of those POST."""

    def __init__(self, path: str, clients: int = 12) -> None:
        self.client, self.clients = Client(path), clients
        self.done, self.closes, self.longest = 0, 0, 0.0
        self.failed: collections.Counter[str] = collections.Counter()
        self.pids: set[int] = set()

    async def __aenter__(self) -> Self:
        self.running = True
        self.tidy = asyncio.create_task(self.client.tidy())
        self.tasks = [asyncio.create_task(self._run(n)) for n in range(self.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running = False
        await asyncio.gather(*self.tasks)
        self.tidy.cancel()

    async def _run(self, number: int) -> None:
        count = 0
        while self.running:
            count += 1
            body = f"{number} {count}".encode() if number % 4 < 2 else b""
            method, fresh = "POST" if body else "GET", number % 2 == 0
            kind, begun = f"{method} {'fresh' if fresh else 'kept'}", time.monotonic()
            try:
                answer = await asyncio.wait_for(self.client.request(method, "/", body, fresh), timeout=30)
                if answer.status != 200 or (body and answer.body != body):
                    self.failed[f"{kind} {answer.status}"] += 1
                elif not body:
                    self.pids.add(int(answer.body))
                self.closes += not fresh and answer.headers.get("connection") == "close"
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self.failed[f"{kind} {type(error).__name__}"] += 1
            self.done += 1
            self.longest = max(self.longest, time.monotonic() - begun)
            # Now and then a kept connection idles for a while before it is used again.
            await asyncio.sleep(0.2 if count % 100 == number else 0)

    def __str__(self) -> str:
        return f"{self.done} requests, {sum(self.failed.values())} failed {dict(self.failed)}"


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), {name.lower(): value for name, value in pairs}
