"""The server that is one Redis: queues and results, in one database or in two."""

from __future__ import annotations

from functools import cached_property, partial

from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.results import RedisBackend
from celeriac.servers.redis.url import SCHEMES, parse_redis_url
from celeriac.servers.url_parts import scheme_of


class RedisServer:
    """One Redis; see ``celeriac.contracts.server.Server``.

    :param url: see ``celeriac.servers.redis.url.parse_redis_url``.
    :param connections: connections of a broker, which are shared if they lead to this server.
    """

    def __init__(self, url: str, terms: Terms, connections: object | None = None) -> None:
        self._url = url
        self._terms = terms
        target = parse_redis_url(url)
        given = (
            connections if isinstance(connections, ConnectionPool) and connections.leads_to(target) else None
        )
        self._pool = given or ConnectionPool(target, terms.settings.publish_timeout)
        self._opened: list[RedisBroker | RedisBackend] = []

    @cached_property
    def broker(self) -> RedisBroker:
        """The queues in the database that the URL names."""
        settings = self._terms.settings
        broker = RedisBroker(
            self._url,
            key_prefix=settings.key_prefix,
            lease=settings.lease,
            visibility_timeout=settings.visibility_timeout,
            clock=self._terms.clock,
            connections=self._pool,
            failed=self._terms.failed,
        )
        self._opened.append(broker)
        return broker

    @property
    def board(self) -> Board:
        """See ``celeriac.contracts.server.Server.board``."""
        return self.broker.board

    def results(self, url: str) -> RedisBackend | None:
        """Return the result store in the database that the URL names."""
        if scheme_of(url) not in SCHEMES or not self._pool.leads_to(parse_redis_url(url)):
            return None
        settings = self._terms.settings
        results = RedisBackend(
            url,
            self._terms.codecs,
            serializer=settings.result_serializer,
            expires=settings.result_expires,
            extended=settings.result_extended,
            key_prefix=settings.key_prefix,
            connections=self._pool,
        )
        self._opened.append(results)
        return results

    async def close(self) -> None:
        """Close what was opened, the last first, and the connections with the last that uses them."""
        for opened in reversed(self._opened):
            await opened.close()


def opener(url: str, terms: Terms) -> partial[RedisServer]:
    """Return what opens the server of a URL."""
    return partial(RedisServer, url, terms)
