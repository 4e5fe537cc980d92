"""One endpoint per thing that a server in front of the app must get right."""

import asyncio
import hashlib
import itertools
import logging
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Query, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from .cache import TTL, CurrentCache, get_or_compute

STATIC = Path(__file__).parent / "static"
HEARTBEAT = 1.0  # seconds between two events
MAX_SLOW = 30.0  # seconds

logger = logging.getLogger(__name__)
router = APIRouter()


def now() -> str:
    return datetime.now(UTC).isoformat()


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    return FileResponse(STATIC / "index.html")


@router.get("/whoami")
async def whoami(request: Request) -> dict[str, Any]:
    """The request as the app sees it, behind whatever proxies."""
    return {
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "host": request.headers["host"],
        "request_id": correlation_id.get(),
        "pid": os.getpid(),
        "version": request.app.state.settings.version,
    }


@router.get("/cached")
async def cached(cache: CurrentCache) -> dict[str, Any]:
    """An answer that is dear to compute, so it is computed once in five minutes."""

    async def compute() -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return {"value": sum(range(1_000)), "computed_at": now(), "computed_by": os.getpid(), "ttl": TTL}

    return await get_or_compute(cache, "answer", compute)


@router.get("/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=MAX_SLOW)] = 1.0) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@router.post("/echo")
async def echo(request: Request) -> Response:
    # Never as text/html: a reflected page would run in the visitor's session.
    return Response(await request.body(), media_type="application/octet-stream")


@router.post("/upload")
def upload(file: UploadFile) -> dict[str, Any]:
    """Files above 1 MB are spooled to $TMPDIR. Not `async`: reading and hashing run in a thread, off the event loop."""
    digest = hashlib.file_digest(file.file, "sha256")
    return {"filename": file.filename, "size": file.size, "sha256": digest.hexdigest()}


@router.get("/events", response_class=EventSourceResponse)
async def events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """A heartbeat, until the client leaves (the generator is then cancelled) or the server stops."""
    stopping: asyncio.Event = request.state.stopping
    number = 0
    try:
        for number in itertools.count(1):
            yield ServerSentEvent(event="heartbeat", id=str(number), data={"time": now()})
            try:
                await asyncio.wait_for(stopping.wait(), HEARTBEAT)
                return
            except TimeoutError:
                continue
    finally:
        logger.debug("Event stream ended", extra={"events": number})


@router.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
