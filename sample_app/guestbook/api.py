"""The JSON API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from guestbook.database import Entry
from guestbook.schemas import About, Client, EntryIn, EntryOut, about
from guestbook.settings import settings
from guestbook.visitor import Visitor

router = APIRouter(prefix="/api")


@router.get("/entries")
async def list_entries(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> list[EntryOut]:
    """Return the newest entries, newest first; `before` an id pages back."""
    query = select(Entry).order_by(Entry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Entry.id < before)
    async with request.app.state.sessions() as session:
        return [EntryOut.model_validate(row) for row in await session.scalars(query)]


@router.post("/entries", status_code=201)
async def add_entry(entry: EntryIn, author: Visitor, request: Request) -> EntryOut:
    """Write into the guest book, and let every open page know."""
    here = about()
    row = Entry(
        name=entry.name,
        message=entry.message,
        author=author,
        release=settings.release,
        slot=settings.slot,
        pid=here.pid,
    )
    async with request.app.state.sessions.begin() as session:
        session.add(row)
        await session.flush()
        stored = EntryOut.model_validate(row)
    await request.app.state.live.announce()
    return stored


@router.get("/about")
async def get_about() -> About:
    """Return which version, release, slot and worker answers."""
    return about()


@router.get("/client")
async def get_client(request: Request) -> Client:
    """Return the client as the app sees it: right only if the proxy's headers are."""
    return Client(
        address=request.client.host if request.client else None,
        scheme=request.url.scheme,
        host=request.headers.get("host", ""),
    )


@router.post("/echo")
async def echo(request: Request) -> Response:
    """Return the body as it came: for load tests."""
    return Response(await request.body(), media_type="application/octet-stream")


@router.get("/slow")
async def slow() -> StreamingResponse:
    """Return a download of two seconds: for load tests."""

    async def lines() -> AsyncIterator[str]:
        for number in range(20):
            yield f"{number}\n"
            await asyncio.sleep(0.1)
        yield "end\n"

    return StreamingResponse(lines(), media_type="text/plain")
