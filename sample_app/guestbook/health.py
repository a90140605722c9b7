"""Whether the process is alive, and whether everything is there that it needs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from guestbook.metrics import exposition
from guestbook.settings import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

CHECK_SECONDS = 2

Check = Callable[[], Awaitable[str]]
log = logging.getLogger(__name__)
router = APIRouter()


def database_check(engine: AsyncEngine) -> Check:
    """Return a check that connects to the database and compares its migrations with the code's."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    head = scripts.get_current_head()
    older = {script.revision for script in scripts.walk_revisions()} - {head}

    async def check() -> str:
        async with engine.connect() as connection:
            at = await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
        if at is None or at in older:
            raise RuntimeError(f"migrations: at {at}, this release needs {head}")
        # A newer release may have migrated already, while this one still serves or is rolled back
        # to. Migrations that only add let both work.
        return f"migrations at {at}" + ("" if at == head else f", newer than this release's {head}")

    return check


def redis_check(redis: "Redis") -> Check:
    """Return a check that Redis answers."""

    async def check() -> str:
        await redis.ping()
        return "answers"

    return check


async def _run(name: str, check: Check) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            ok, detail = True, await check()
    except TimeoutError:
        ok, detail = False, f"no answer within {CHECK_SECONDS} s"
    except Exception as error:  # Whatever it is, it is the answer.
        cause = getattr(error, "orig", None) or error
        ok, detail = False, (str(cause) or type(cause).__name__).splitlines()[0]
    if not ok:
        log.warning("not ready: %s: %s", name, detail)
    milliseconds = round((time.perf_counter() - start) * 1000, 1)
    return {"ok": ok, "detail": detail, "milliseconds": milliseconds}


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer: the process is alive, whatever it depends on."""
    return {"status": "alive"}


@router.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, Any]:
    """Check each dependency, all at once; 503 if one is down."""
    checks: dict[str, Check] = request.app.state.checks
    results = await asyncio.gather(*(_run(name, check) for name, check in checks.items()))
    all_ok = all(result["ok"] for result in results)
    response.status_code = 200 if all_ok else 503
    return {
        "status": "ready" if all_ok else "not ready",
        "checks": dict(zip(checks, results, strict=True)),
    }


@router.get("/metrics")
def metrics() -> Response:
    """Return the metrics of all workers."""
    return Response(exposition(), media_type="text/plain; version=1.0.0; charset=utf-8")
