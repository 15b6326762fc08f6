"""The server that is one SQLite file."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path

from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.servers.sqlite.broker import SqliteBroker
from celeriac.servers.sqlite.results import SqlBackend
from celeriac.servers.url_parts import FILE_SCHEMES, file_of, scheme_of


class SqliteServer:
    """One SQLite file; see ``celeriac.contracts.server.Server``.

    Broker and results have a connection each, so that reads of results pass the writes of the queue (ADR 20).

    :param url: see ``celeriac.servers.url_parts.file_of``.
    """

    def __init__(self, url: str, terms: Terms, connections: object | None = None) -> None:
        self._path = Path(file_of(url)).absolute()
        self._terms = terms
        self._opened: list[SqliteBroker | SqlBackend] = []

    @cached_property
    def broker(self) -> SqliteBroker:
        """The queues in the file."""
        settings = self._terms.settings
        broker = SqliteBroker(
            str(self._path),
            clock=self._terms.clock,
            lease=settings.lease,
            group=settings.sqlite_group,
            failed=self._terms.failed,
        )
        self._opened.append(broker)
        return broker

    @property
    def board(self) -> Board:
        """See ``celeriac.contracts.server.Server.board``."""
        return self.broker.board

    def results(self, url: str) -> SqlBackend | None:
        """Return the result store of the same file."""
        if scheme_of(url) not in FILE_SCHEMES or Path(file_of(url)).absolute() != self._path:
            return None
        settings = self._terms.settings
        results = SqlBackend(
            url,
            self._terms.codecs,
            serializer=settings.result_serializer,
            expires=settings.result_expires,
            extended=settings.result_extended,
            group=settings.sqlite_group,
            clock=self._terms.clock,
        )
        self._opened.append(results)
        return results

    async def close(self) -> None:
        """Close what was opened, the last first."""
        for opened in reversed(self._opened):
            await opened.close()


def opener(url: str, terms: Terms) -> partial[SqliteServer]:
    """Return what opens the server of a URL."""
    return partial(SqliteServer, url, terms)
