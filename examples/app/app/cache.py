"""A cache with a time to live: in each worker's memory, or in Redis, shared by all workers and hosts."""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aiocache import Cache
from aiocache.base import BaseCache
from fastapi import Depends
from starlette.requests import HTTPConnection

TTL = 300  # seconds

logger = logging.getLogger(__name__)


def create_cache(url: str) -> BaseCache:
    cache = Cache.from_url(url)
    cache.namespace = "example-app"
    cache.ttl = TTL
    cache.timeout = 1  # seconds for one operation; aiocache waits 5
    return cache


async def get_or_compute(cache: BaseCache, key: str, compute: Callable[[], Awaitable[Any]]) -> Any:
    """Without its cache the app is slower, not down."""
    try:
        value = await cache.get(key)
    except Exception:
        logger.exception("Cannot read %s from the cache", key)
        return await compute()
    if value is None:
        value = await compute()
        try:
            await cache.set(key, value)
        except Exception:
            logger.exception("Cannot write %s to the cache", key)
    return value


def current_cache(connection: HTTPConnection) -> BaseCache:
    return connection.state.cache


CurrentCache = Annotated[BaseCache, Depends(current_cache)]
