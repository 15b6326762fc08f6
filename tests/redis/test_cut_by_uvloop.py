"""A write to a connection that was cut a moment ago, as uvloop tells it."""

import asyncio

import pytest

from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.url import parse_redis_url
from tests.servers import RedisServer

uvloop = pytest.importorskip("uvloop")


def test_a_write_to_a_cut_connection_is_worth_another_try(redis_server: RedisServer):
    async def write_to_what_was_cut() -> None:
        target = parse_redis_url(redis_server.url())
        link = Link(target, ConnectionPool(target, 5), unavailable=BrokerUnavailable, refused=BrokerError)
        _, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
        writer.transport.abort()
        await asyncio.sleep(0.01)
        async with link.deadline():
            writer.writelines([b"PING\r\n"])

    with pytest.raises(BrokerUnavailable, match="closed"):
        uvloop.run(write_to_what_was_cut())
