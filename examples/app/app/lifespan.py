"""What each worker opens when it starts and closes when it stops."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI

from .cache import create_cache
from .settings import Settings


@contextmanager
def set_when_told_to_stop(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event at once when the server is told to stop.

    The server itself tells the app only after the last response has ended, and an event stream never ends by itself.
    """
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield
        return
    loop = asyncio.get_running_loop()
    server_handlers = {
        signum: handler for signum in (signal.SIGTERM, signal.SIGINT) if callable(handler := signal.getsignal(signum))
    }

    def handle(signum: int, frame: Any) -> None:
        loop.call_soon_threadsafe(stopping.set)
        server_handlers[signum](signum, frame)

    for signum in server_handlers:
        signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in server_handlers.items():
            signal.signal(signum, handler)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    settings: Settings = app.state.settings
    # Opened here, not at import: with preload_app the import happens before the fork, and connections don't survive it.
    cache = create_cache(settings.cache_url)
    stopping = asyncio.Event()
    with set_when_told_to_stop(stopping):
        yield {"cache": cache, "stopping": stopping}
    await cache.close()
