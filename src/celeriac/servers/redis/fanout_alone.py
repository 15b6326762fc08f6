"""The fanout of a Redis without the rest of its wing: for a short command that asks workers and does nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.fanout import RedisFanout
from celeriac.servers.redis.foreign_keys import ForeignKeys
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.pushes import Pushes
from celeriac.servers.redis.url import RedisTarget, parse_redis_url
from celeriac.wire.names import PRIORITY_STEPS

_TIMEOUT = 5.0
"""Seconds for any one call, as in a broker of default settings."""


def opener(url: str) -> Callable[[], AbstractAsyncContextManager[RedisFanout]]:
    """Return what opens the fanout of a URL. Raises ``ConfigError`` for a URL that cannot be used."""
    target = parse_redis_url(url)
    return lambda: _open(target)


@asynccontextmanager
async def _open(target: RedisTarget) -> AsyncIterator[RedisFanout]:
    link = Link(target, ConnectionPool(target, _TIMEOUT), unavailable=BrokerUnavailable, refused=BrokerError)
    keys = Keys(target.key_prefix, PRIORITY_STEPS)
    link.on_wrong_type = ForeignKeys(link, keys).set_aside
    pushes = Pushes(link)
    fanout = RedisFanout(link, keys, pushes)
    try:
        yield fanout
    finally:
        await fanout.close()
        await pushes.close()
        await link.close()
