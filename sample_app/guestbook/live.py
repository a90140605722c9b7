"""What every open page sees at once, whichever worker or host serves it.

The database is all that the workers share, so a worker that has visitors looks there a few times a
second, and one that has none does nothing. Where Redis is configured, it says when to look.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi import WebSocket
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from guestbook.database import Entry, Presence, now
from guestbook.metrics import VISITORS
from guestbook.schemas import EntryOut, about
from guestbook.settings import settings

if TYPE_CHECKING:
    # Imported where it is used: it is a sixth of what there is to import at each start.
    from redis.asyncio import Redis

CHANNEL = "guestbook"
SHOWN = 30
SAFETY_NET_SECONDS = 5.0
RETRY_SECONDS = 1.0
# Many changes at one moment cost one look at the database, and one message to each page.
GATHER_SECONDS = 0.05
# A page that hears nothing for longer than this may think that the line is dead.
BEAT_SECONDS = 10.0

log = logging.getLogger(__name__)


class Signal:
    """Something that happens again and again, and that any number of tasks wait for."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Wake everybody who waits."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, count: int, seconds: float) -> None:
        """Return once `fire` was called more than `count` times, or the time is up."""
        if self.count > count:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass


class Live:
    """One worker's view of the guest book, and the pages that follow it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], redis: "Redis | None") -> None:
        self._sessions = sessions
        self._redis = redis
        self._worker = uuid.uuid4().hex
        self._here = 0
        self._reported = 0
        self._reported_at = 0.0
        self._elsewhere = 0
        self._marker: int | None = None
        self._entries: dict[int, dict[str, Any]] | None = None
        self._look = asyncio.Event()
        self._looked = Signal()
        self._changed = Signal()
        self._subscribed = False

    async def follow(self, websocket: WebSocket, author: str | None) -> None:
        """Send a page all that it shows, and then each change, for ever."""
        with self._present():
            await self._looked.wait(self._looked.count, seconds=1)
            message: dict[str, Any] = {"about": about().model_dump(), "you": author}
            sent: set[int] | None = None
            while True:
                seen = self._changed.count
                if self._entries is not None:
                    fresh = [e for id, e in self._entries.items() if id not in (sent or ())]
                    if fresh or sent is None:
                        message["entries"] = fresh
                    sent = set(self._entries)
                message["visitors"] = self._here + self._elsewhere
                await websocket.send_json(message)
                message = {}
                await asyncio.sleep(GATHER_SECONDS)
                await self._changed.wait(seen, BEAT_SECONDS)

    async def announce(self) -> None:
        """Let every worker look at the database: something changed there."""
        self._look.set()
        if self._redis is not None:
            from redis.exceptions import RedisError

            try:
                await self._redis.publish(CHANNEL, self._worker)
            except RedisError as error:
                log.warning("cannot tell the other workers at once: %s", error)

    async def watch(self) -> None:
        """Keep this worker's view up to date, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._interval()):
                    await self._look.wait()
                    await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self._report()
                if self._here:
                    await self._read()
            except Exception as error:  # A fault of the database must not end the view of it.
                log.error("cannot read what changed, trying again: %r", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def listen(self) -> None:
        """Look whenever Redis says so, for ever."""
        if self._redis is not None:
            from redis.exceptions import RedisError
        while self._redis is not None:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    self._subscribed = True
                    async for message in channel.listen():
                        if message["data"] != self._worker.encode():
                            self._look.set()
            except (RedisError, OSError) as error:
                log.warning("lost Redis, polling the database instead: %s", error)
            finally:
                self._subscribed = False
            self._look.set()
            await asyncio.sleep(RETRY_SECONDS)

    async def leave(self) -> None:
        """Take this worker out of the count."""
        self._here = 0
        await self._report()

    @contextmanager
    def _present(self) -> Iterator[None]:
        self._here += 1
        VISITORS.set(self._here)
        self._look.set()
        try:
            yield
        finally:
            self._here -= 1
            VISITORS.set(self._here)
            self._look.set()

    def _interval(self) -> float | None:
        if not self._here:
            return None
        return SAFETY_NET_SECONDS if self._subscribed else settings.poll_seconds

    async def _report(self) -> None:
        here = self._here
        age = time.monotonic() - self._reported_at
        if here == self._reported and (here == 0 or age < settings.presence_seconds / 3):
            return
        expired = now() - timedelta(seconds=settings.presence_seconds)
        async with self._sessions.begin() as session:
            await session.execute(delete(Presence).where(Presence.seen_at < expired))
            if here == 0:
                await session.execute(delete(Presence).where(Presence.worker == self._worker))
            else:
                await session.merge(Presence(worker=self._worker, visitors=here, seen_at=now()))
        changed = here != self._reported
        self._reported, self._reported_at = here, time.monotonic()
        if changed:
            self._changed.fire()
            await self.announce()

    async def _read(self) -> None:
        expired = now() - timedelta(seconds=settings.presence_seconds)
        newest = select(Entry.id).order_by(Entry.id.desc()).limit(SHOWN).subquery()
        # The sum, not the greatest id: two transactions may end in the other order.
        marker = select(func.coalesce(func.sum(newest.c.id), 0)).scalar_subquery()
        elsewhere = (
            select(func.coalesce(func.sum(Presence.visitors), 0))
            .where(Presence.worker != self._worker, Presence.seen_at > expired)
            .scalar_subquery()
        )
        async with self._sessions() as session:
            now_marker, now_elsewhere = (await session.execute(select(marker, elsewhere))).one()
            changed = (now_marker, now_elsewhere) != (self._marker, self._elsewhere)
            if now_marker != self._marker:
                rows = await session.scalars(select(Entry).order_by(Entry.id.desc()).limit(SHOWN))
                self._entries = {
                    row.id: EntryOut.model_validate(row).model_dump(mode="json")
                    for row in reversed(rows.all())
                }
        self._marker, self._elsewhere = now_marker, int(now_elsewhere)
        self._looked.fire()
        if changed:
            self._changed.fire()
