"""The server that is one RabbitMQ: one connection for queues and results."""

from __future__ import annotations

import re
from functools import cached_property, partial
from typing import TypeAlias

from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.errors import ConfigError
from celeriac.servers.rabbitmq.broker import AmqpBroker
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.url import SCHEMES, parse_amqp_url
from celeriac.servers.rabbitmq.queue_results import AmqpBackend
from celeriac.servers.rabbitmq.rpc_results import RpcBackend
from celeriac.servers.url_parts import masked, scheme_of

Results: TypeAlias = AmqpBackend | RpcBackend

_RPC = re.compile(r"(?<![^;])\s*rpc://", re.IGNORECASE)


class AmqpServer:
    """One RabbitMQ; see ``celeriac.contracts.server.Server``.

    :param url: see ``celeriac.servers.rabbitmq.protocol.url.parse_amqp_url``; or ``rpc://`` in place of ``amqp://``,
        alone for the server of the broker whose connection is given.
    :param connections: a broker's, used where they lead to this server.
    """

    def __init__(self, url: str, terms: Terms, connections: object | None = None) -> None:
        given = connections if isinstance(connections, Link) else None
        if _names_no_host(url):
            if given is None:
                raise ConfigError(
                    f"{masked(url)!r} sends results over the connection of an amqp:// broker, and this app's broker is "
                    "none: use another backend, or name a RabbitMQ, as in rpc://user:password@host/vhost"
                )
            self._link, self._owned = given, False
        else:
            url = _RPC.sub("amqp://", url)
            shared = given if given is not None and given.target == parse_amqp_url(url) else None
            self._link, self._owned = (
                shared or Link(url, timeout=terms.settings.publish_timeout),
                shared is None,
            )
        self._url = url
        self._terms = terms
        self._results: list[Results] = []

    @cached_property
    def broker(self) -> AmqpBroker:
        """The queues there."""
        settings = self._terms.settings
        return AmqpBroker(
            self._url,
            priorities=settings.priorities,
            timeout=settings.publish_timeout,
            clock=self._terms.clock,
            link=self._link,
            failed=self._terms.failed,
        )

    @property
    def board(self) -> Board:
        """See ``celeriac.contracts.server.Server.board``."""
        return self.broker.board

    def results(self, url: str) -> Results | None:
        """Return the result store of this server that sends messages (``rpc``) or has a queue for each result."""
        scheme = scheme_of(url)
        if scheme not in (*SCHEMES, "rpc") or not self._is_at(url):
            return None
        settings = self._terms.settings
        kind: type[Results] = RpcBackend if scheme == "rpc" else AmqpBackend
        results = kind(
            self._link,
            self._terms.codecs,
            serializer=settings.result_serializer,
            expires=settings.result_expires,
            extended=settings.result_extended,
            owned=False,
        )
        self._results.append(results)
        return results

    def _is_at(self, url: str) -> bool:
        return _names_no_host(url) or parse_amqp_url(_RPC.sub("amqp://", url)) == self._link.target

    async def close(self) -> None:
        """Close the result stores, the broker, and the connection if it is this server's own."""
        for results in self._results:
            await results.close()
        if "broker" in self.__dict__:
            await self.broker.close()
        elif self._owned:
            await self._link.close()


def opener(url: str, terms: Terms) -> partial[AmqpServer]:
    """Return what opens the server of a URL."""
    return partial(AmqpServer, url, terms)


def _names_no_host(url: str) -> bool:
    return scheme_of(url) == "rpc" and url.partition("://")[2][:1] in ("", "/", "?")
