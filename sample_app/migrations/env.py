"""Runs the migrations with the app's own settings, models and logging."""

import asyncio
import logging

from alembic import context
from sqlalchemy import Connection

from guestbook.database import Base, create_engine
from guestbook.log import configure_logging

configure_logging()
logging.getLogger("alembic").setLevel(logging.INFO)


def migrate(connection: Connection) -> None:
    """Run the migrations, all in one transaction where the database can."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite alters a table by making it anew.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Connect as the app does, and migrate."""
    engine = create_engine()
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("migrations need the database: run without --sql")
asyncio.run(main())
