"""The database: its tables, and how to connect to it."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeDecorator

from guestbook.settings import settings

CONNECT_SECONDS = 5


class Moment(TypeDecorator[datetime]):
    """A point in time, always in UTC: SQLite forgets the zone that it was given."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give a time that came back without a zone its zone again."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """What all tables share."""


class Entry(Base):
    """One entry of the guest book, and what took it in."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    name: Mapped[str] = mapped_column(String(40))
    message: Mapped[str] = mapped_column(String(280))
    author: Mapped[str] = mapped_column(String(8))
    release: Mapped[str] = mapped_column(String(64))
    slot: Mapped[str] = mapped_column(String(16))
    pid: Mapped[int]


class Presence(Base):
    """How many visitors one worker has; a worker that was killed stops renewing `seen_at`."""

    __tablename__ = "presence"

    worker: Mapped[str] = mapped_column(String(32), primary_key=True)
    visitors: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(Moment)


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # WAL lets every worker read while one writes.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def create_engine() -> AsyncEngine:
    """Return the engine that the app works with; it connects when first used."""
    url = settings.database
    if url.get_backend_name() == "sqlite":
        # SQLite's own timeout is how long a writer waits for its turn.
        engine = create_async_engine(url, connect_args={"timeout": CONNECT_SECONDS})
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
        return engine
    return create_async_engine(
        url,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_SECONDS, "command_timeout": 10},
    )


def create_probe_engine() -> AsyncEngine:
    """Return an engine that connects anew each time and never creates a database.

    A kept connection would go on reading a SQLite file that is no longer there.
    """
    url = settings.database
    if url.get_backend_name() == "sqlite":
        url = url.set(database=f"file:{url.database}", query={"mode": "rw", "uri": "true"})
    return create_async_engine(url, poolclass=NullPool)
