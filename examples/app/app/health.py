"""Liveness: is the process sound? Readiness: should it get traffic? Only the first may cause a restart."""

import logging
from typing import Any

from fastapi import APIRouter, Request, Response, status

from .cache import CurrentCache

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request, response: Response, cache: CurrentCache) -> dict[str, Any]:
    reason = None
    if request.state.stopping.is_set():
        reason = "shutting down"
    else:
        try:
            await cache.exists("ready")
        except Exception:
            logger.exception("The cache does not answer")  # details are for the log, not for the public
            reason = "the cache does not answer"
    if reason:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return {"status": "unavailable", "reason": reason}
    return {"status": "ok", "version": request.app.state.settings.version}
