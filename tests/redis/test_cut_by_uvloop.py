"""A write to a connection that was cut a moment ago, as uvloop tells it."""

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
        pool = ConnectionPool(target, 5)
        link = Link(target, pool, unavailable=BrokerUnavailable, refused=BrokerError)
        await link.call("PING")
        connection = pool.take(target.db)
        assert connection is not None
        connection._transport.abort()
        assert connection.is_open  # it learns of its end from the loop
        pool.give_back(connection, target.db)
        try:
            await link.call("PING")
        finally:
            await link.close()

    with pytest.raises(BrokerUnavailable, match="closed"):
        uvloop.run(write_to_what_was_cut())
