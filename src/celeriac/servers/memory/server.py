"""The server that is the memory of one process, as far as one event loop sees it."""

from __future__ import annotations

import asyncio

from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.errors import ConfigError
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.results import MemoryBackend
from celeriac.servers.url_parts import scheme_of


class MemoryServer:
    """See ``celeriac.contracts.server.Server``."""

    def __init__(self, terms: Terms) -> None:
        self._broker = MemoryBroker(terms.clock, failed=terms.failed)
        self._results = MemoryBackend(terms.codecs, terms.clock, terms.settings.result_expires)

    @property
    def broker(self) -> MemoryBroker:
        """The queues."""
        return self._broker

    @property
    def board(self) -> Board:
        """See ``celeriac.contracts.server.Server.board``."""
        return self.broker.board

    def results(self, url: str) -> MemoryBackend | None:
        """Return this server's result store; ``None`` for a URL of another kind of server."""
        return self._results if scheme_of(url) == "memory" else None

    async def close(self) -> None:
        """Close both; what they hold stays."""
        await self._results.close()
        await self._broker.close()


class _InOneLoop:
    """Opens the server of one event loop, the same each time: in another loop it would be another place."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._server: MemoryServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, connections: object | None = None, /) -> MemoryServer:
        loop = asyncio.get_running_loop()
        if self._loop is None or self._server is None or self._loop.is_closed():
            self._loop, self._server = loop, MemoryServer(self._terms)
        elif self._loop is not loop:
            raise ConfigError(
                "memory:// is in use in another event loop and cannot be shared with this one (blocking calls have a "
                "loop of their own): use sqlite:///file.db, or stay in one loop"
            )
        return self._server


def opener(url: str, terms: Terms) -> _InOneLoop:
    """Return what opens the server of the running loop."""
    return _InOneLoop(terms)
