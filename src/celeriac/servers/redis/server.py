"""The server that is one Redis: queues and results, in one database or in two."""

from __future__ import annotations

from functools import cached_property, partial

from celeriac.server import Terms
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.results import RedisBackend
from celeriac.servers.redis.url import SCHEMES, parse_redis_url
from celeriac.servers.url_parts import scheme_of


class RedisServer:
    """One Redis; see ``celeriac.server.Server``.

    :param url: see ``celeriac.servers.redis.url.parse_redis_url``.
    """

    def __init__(self, url: str, terms: Terms, connections: object | None = None) -> None:
        self._url = url
        self._terms = terms
        self._target = parse_redis_url(url)
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
            timeout=settings.publish_timeout,
            clock=self._terms.clock,
        )
        self._opened.append(broker)
        return broker

    def results(self, url: str) -> RedisBackend | None:
        """Return the result store in the database that the URL names."""
        if scheme_of(url) not in SCHEMES or not parse_redis_url(url).is_same_server(self._target):
            return None
        settings = self._terms.settings
        results = RedisBackend(
            url,
            self._terms.codecs,
            serializer=settings.result_serializer,
            expires=settings.result_expires,
            extended=settings.result_extended,
            key_prefix=settings.key_prefix,
            timeout=settings.publish_timeout,
        )
        self._opened.append(results)
        return results

    async def close(self) -> None:
        """Close what was opened, the last first."""
        for opened in reversed(self._opened):
            await opened.close()


def opener(url: str, terms: Terms) -> partial[RedisServer]:
    """Return what opens the server of a URL."""
    return partial(RedisServer, url, terms)
