"""The connections of an app in each event loop.

Rules: a connection belongs to the loop and the process that opened it, and is closed when the loop ends. The app closes
only what it has opened: the user closes a broker or backend object that they handed in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet, finalize

import msgspec

from celeriac.client.pausing import Pauses
from celeriac.client.publisher import Publisher
from celeriac.client.requests import Requests
from celeriac.client.revocations import Revocations
from celeriac.contracts.backend import Backend
from celeriac.contracts.board import Board
from celeriac.contracts.broker import Broker
from celeriac.contracts.server import Server, Settlements

T = TypeVar("T")

logger = logging.getLogger(__name__)


class RunBlocking(Protocol):
    """Runs a coroutine for a caller without an event loop and returns what it returns.

    A worker inside a test runs tasks while the caller waits for one to end, and only then: hence ``for_a_result``.
    """

    def __call__(self, coroutine: Coroutine[Any, Any, T], /, *, for_a_result: bool = False) -> T: ...


class Connections(msgspec.Struct, frozen=True):
    """The connections of one loop; broker and result store connect on their first use.

    :param owned: the servers that ``close`` closes.
    :param requests: publishes requests to all workers; ``None`` where nobody is to be told.
    :param settlements: lands a decision in one step; ``None`` where broker and results are not on one server.
    """

    broker: Broker
    backend: Backend
    publisher: Publisher
    owned: tuple[Server, ...] = ()
    settlements: Settlements | None = None
    requests: Requests | None = None

    @property
    def board(self) -> Board:
        """The board of the broker's server."""
        return self.broker.board

    @property
    def revocations(self) -> Revocations:
        """The revoked tasks."""
        return Revocations(self.broker.board, self.broker.schedule)

    @property
    def pauses(self) -> Pauses:
        """The paused queues."""
        return Pauses(self.broker.board.sets)

    async def close(self) -> None:
        """Close what was opened here."""
        for opened in reversed(self.owned):  # the results' server may use the broker's connections
            await opened.close()


class ConnectionTable:
    """The connections of every event loop that an app was used in."""

    def __init__(self, open_connections: Callable[[], Connections]) -> None:
        self._open = open_connections
        self._entries: WeakKeyDictionary[asyncio.AbstractEventLoop, _Entry] = WeakKeyDictionary()

    def current(self) -> Connections:
        """Return the running loop's connections. Raises ``RuntimeError`` where no loop runs."""
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None or entry.pid != os.getpid():
            entry = self._entries[loop] = _Entry(self._open())
            # When the table itself is collected as garbage, the connections that it opened are closed.
            entry.abandoned = finalize(self, _close_soon, loop, entry)
            entry.abandoned.atexit = False
            _close_with(loop, entry)
        return entry.connections

    async def close(self) -> None:
        """Close the running loop's connections; using the app again opens new ones."""
        entry = self._entries.pop(asyncio.get_running_loop(), None)
        if entry is not None and entry.pid == os.getpid():
            await entry.guard.aclose()


class _Entry:
    """The connections of one loop, and what closes them."""

    def __init__(self, connections: Connections) -> None:
        self.pid = os.getpid()
        self.connections = connections
        self.abandoned: finalize[[asyncio.AbstractEventLoop, _Entry], ConnectionTable] | None = None
        self.guard = self._until_closed()
        # One step by hand: the loop learns of the generator and closes it in `shutdown_asyncgens`, which `asyncio.run`
        # calls at its end, so that a program which never says `close` leaves nothing open either.
        with suppress(StopIteration):
            self.guard.__anext__().send(None)

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self.abandoned is not None:
                self.abandoned.detach()
            await self.connections.close()


class _ClosingFirst:
    """Replaces a loop's ``close``: closes the connections that are left, then the loop.

    A program that makes its loop by hand often calls ``loop.close()`` and never ``shutdown_asyncgens()``. Its
    connections, and with SQLite their thread, would then stay open, since nothing can close them after the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._close = loop.close
        self.entries: WeakSet[_Entry] = WeakSet()

    def __call__(self) -> None:
        loop = self._loop
        if not (loop.is_closed() or sys.is_finalizing() or _a_loop_runs()):
            for entry in list(self.entries):
                if entry.pid == os.getpid():
                    loop.run_until_complete(_close_quietly(entry))
        self._close()


def _a_loop_runs() -> bool:
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is not None
    return False


async def _close_quietly(entry: _Entry) -> None:
    try:
        await entry.guard.aclose()
    except Exception:
        logger.exception("connections could not be closed at the end of their event loop")


def _close_with(loop: asyncio.AbstractEventLoop, entry: _Entry) -> None:
    """Have the entry closed by ``loop.close()``."""
    if not isinstance(loop.close, _ClosingFirst):
        # A loop that allows no new attributes keeps its own ``close``.
        with suppress(AttributeError):
            loop.close = _ClosingFirst(loop)  # type: ignore[method-assign]
    if isinstance(loop.close, _ClosingFirst):
        loop.close.entries.add(entry)


def _close_soon(loop: asyncio.AbstractEventLoop, entry: _Entry) -> None:
    if entry.pid == os.getpid() and not loop.is_closed():
        loop.call_soon_threadsafe(lambda: loop.create_task(entry.guard.aclose()))
