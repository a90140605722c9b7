"""The page, and the socket that keeps it live."""

import logging
from urllib.parse import urlsplit

import anyio
from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.templating import Jinja2Templates

from guestbook.assets import asset_url
from guestbook.schemas import about
from guestbook.settings import ROOT
from guestbook.visitor import Visitor, public_tag, recognise

POLICY_VIOLATION = 1008

log = logging.getLogger(__name__)
router = APIRouter()
templates = Jinja2Templates(ROOT / "templates")
templates.env.globals["asset"] = asset_url()


@router.get("/", include_in_schema=False)
async def page(request: Request, response: Response, author: Visitor) -> Response:
    """Return the page; the visitor gets a cookie before the socket needs it."""
    # The page names the assets of its release: ask each time whether there is a newer one.
    headers = {"cache-control": "private, no-cache"}
    if cookie := response.headers.get("set-cookie"):
        headers["set-cookie"] = cookie
    return templates.TemplateResponse(request, "index.html", {"about": about()}, headers=headers)


def _same_origin(websocket: WebSocket) -> bool:
    # Browsers always send an Origin, and let any site open a socket to any other.
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")


async def _until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


@router.websocket("/ws")
async def socket(websocket: WebSocket) -> None:
    """Keep one page live until the page or the server closes the socket."""
    if not _same_origin(websocket):
        log.warning("refused a WebSocket from %s", websocket.headers["origin"])
        await websocket.close(POLICY_VIOLATION)
        return
    await websocket.accept()
    identifier = recognise(websocket)
    author = public_tag(identifier) if identifier else None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.app.state.live.follow, websocket, author)
            await _until_closed(websocket)
            tasks.cancel_scope.cancel()
    except* WebSocketDisconnect:
        pass  # Noticed while sending.
