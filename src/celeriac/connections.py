"""Who an app talks to, in each event loop.

Rules: a connection belongs to the loop and the process that opened it; the end of the loop closes it. Who opens
closes: a broker or backend object handed in by the user is theirs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.publisher import Publisher

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a coroutine for a caller without an event loop and returns what it returns."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


class Connections(msgspec.Struct, frozen=True):
    """One loop's connections, made lazily by the adapters themselves.

    :param owned: what is closed with them.
    """

    broker: Broker
    backend: Backend
    publisher: Publisher
    owned: tuple[Broker | Backend, ...] = ()

    async def close(self) -> None:
        """Close what was opened here."""
        for opened in self.owned:
            await opened.close()


class _Entry(msgspec.Struct, frozen=True):
    pid: int
    connections: Connections
    guard: AsyncGenerator[None, None]


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
            entry = self._entries[loop] = self._enter()
        return entry.connections

    async def close(self) -> None:
        """Close the running loop's connections; using the app again opens new ones."""
        entry = self._entries.pop(asyncio.get_running_loop(), None)
        if entry is not None and entry.pid == os.getpid():
            await entry.guard.aclose()

    def _enter(self) -> _Entry:
        connections = self._open()
        guard = _closing(connections)
        # One step by hand: the loop learns of the generator and closes it in `shutdown_asyncgens`, which `asyncio.run`
        # calls at its end, so that a program which never says `close` leaves nothing open either.
        with suppress(StopIteration):
            guard.__anext__().send(None)
        return _Entry(os.getpid(), connections, guard)


async def _closing(connections: Connections) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await connections.close()
