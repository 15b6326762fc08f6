"""The server that is one PostgreSQL database."""

from __future__ import annotations

from functools import cached_property, partial

from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.errors import ConfigError
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url


class PostgresServer:
    """One PostgreSQL database; see ``celeriac.contracts.server.Server``.

    :param url: see ``celeriac.servers.postgres.url.parse_postgres_url``.
    :param connections: connections of a broker, which are shared if they lead to this database.
    """

    def __init__(self, url: str, terms: Terms, connections: object | None = None) -> None:
        target = parse_postgres_url(url)
        shared = (
            connections
            if isinstance(connections, Connections) and connections.target.leads_to(target)
            else None
        )
        self._connections = shared or Connections(target, "celeriac", terms.settings.publish_timeout)
        self._terms = terms
        self._opened: list[PostgresBroker | PostgresBackend] = []

    @cached_property
    def broker(self) -> PostgresBroker:
        """The queues in the database."""
        broker = PostgresBroker(
            self._connections,
            clock=self._terms.clock,
            lease=self._terms.settings.lease,
            failed=self._terms.failed,
        )
        self._opened.append(broker)
        return broker

    @property
    def board(self) -> Board:
        """See ``celeriac.contracts.server.Server.board``."""
        return self.broker.board

    def results(self, url: str) -> PostgresBackend | None:
        """Return the result store of the same database."""
        try:
            target = parse_postgres_url(url)
        except ConfigError:
            return None
        if not self._connections.target.leads_to(target):
            return None
        settings = self._terms.settings
        results = PostgresBackend(
            self._connections,
            self._terms.codecs,
            serializer=settings.result_serializer,
            expires=settings.result_expires,
            extended=settings.result_extended,
            clock=self._terms.clock,
        )
        self._opened.append(results)
        return results

    async def close(self) -> None:
        """Close what was opened, the last first, and the connections with the last that uses them."""
        for opened in reversed(self._opened):
            await opened.close()


def opener(url: str, terms: Terms) -> partial[PostgresServer]:
    """Return what opens the server of a URL."""
    parse_postgres_url(url)
    return partial(PostgresServer, url, terms)
