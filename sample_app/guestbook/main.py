"""The app: `guestbook.main:app`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from starlette.staticfiles import StaticFiles

from guestbook import api, health, pages
from guestbook.about import VERSION
from guestbook.database import CONNECT_SECONDS, create_engine, create_probe_engine
from guestbook.live import Live
from guestbook.log import configure_logging
from guestbook.metrics import measure_lag
from guestbook.middleware import RequestContext
from guestbook.settings import ROOT, settings

CLOSE_SECONDS = 2

configure_logging()
log = logging.getLogger(__name__)


async def _reach(engine: AsyncEngine) -> None:
    url = engine.url.render_as_string(hide_password=True)
    try:
        async with asyncio.timeout(CONNECT_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        raise RuntimeError(f"cannot start: no database at {url}: {error}") from error


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect, run the background tasks while the app serves, and close what was opened."""
    async with contextlib.AsyncExitStack() as stack:
        engine = create_engine()
        stack.push_async_callback(engine.dispose)
        await _reach(engine)
        app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
        app.state.checks = {"database": health.database_check(create_probe_engine())}
        redis = None
        if settings.redis_url is not None:
            from redis.asyncio import Redis

            redis = Redis.from_url(settings.redis_url.get_secret_value())
            stack.push_async_callback(redis.aclose)
            app.state.checks["redis"] = health.redis_check(redis)
        live = app.state.live = Live(app.state.sessions, redis)

        tasks = [asyncio.create_task(task) for task in (live.watch(), live.listen(), measure_lag())]
        log.info("serving version %s", VERSION)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await live.leave()
            except Exception as error:  # The row expires by itself.
                log.warning("cannot take this worker out of the count: %s", error)


app = FastAPI(
    title="Guestbook",
    version=VERSION,
    lifespan=lifespan,
    openapi_url="/api/openapi.json",
    # Their pages load scripts from elsewhere, which a strict content policy refuses.
    docs_url=None,
    redoc_url=None,
)
app.add_middleware(RequestContext)
app.include_router(pages.router)
app.include_router(health.router)
app.include_router(api.router)
# In production nginx answers these before they come here.
app.mount("/static", StaticFiles(directory=ROOT / "static"), name="static")
