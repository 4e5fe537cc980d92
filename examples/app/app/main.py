"""The application: `app.main:app`."""

import logging
import re
import uuid

from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from . import health, routes
from .lifespan import lifespan
from .logging import configure_logging
from .settings import Settings

# The same that nginx takes from outside, so that one id runs through both logs.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")


async def internal_error(request: Request, error: Exception) -> JSONResponse:
    # This answer is made outside all middleware, so nothing else would add the id: the one to quote in a report.
    return JSONResponse({"detail": "Internal Server Error"}, 500, headers={"X-Request-ID": correlation_id.get() or ""})


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    configure_logging(settings.log_level)

    app = FastAPI(
        title="Example app",
        version=settings.version,
        openapi_url="/openapi.json" if settings.docs else None,  # /docs and /redoc go with it
        lifespan=lifespan,
        exception_handlers={Exception: internal_error},
    )
    app.state.settings = settings
    app.include_router(health.router)
    app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=routes.STATIC))  # for development: in production nginx serves them

    # Last added runs first: a refused Host still gets a request id.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False)
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        validator=lambda value: REQUEST_ID.fullmatch(value) is not None,
        generator=lambda: uuid.uuid4().hex,
    )
    logging.getLogger(__name__).info("Application created", extra={"version": settings.version})
    return app


app = create_app()
