"""Whether the servers of an app answer, and how late its event loop is, where no probe looks after that already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.errors import CeleriacError
from celeriac.probes.health import Pulse
from celeriac.servers.disabled import DisabledBackend

PATIENCE = 0.5
"""Seconds that a server has to answer."""


class Vitals:
    """What one app knows of its servers and its loop.

    :param broker: returns the broker, and ``backend`` the result store, in the event loop that asks.
    :ivar broker_up: whether the broker answered the latest question; ``None`` before the first.
    :ivar backend_up: the same of the result store; ``None`` where results are not kept, too.
    """

    def __init__(self, broker: Callable[[], Broker], backend: Callable[[], Backend]) -> None:
        self._broker = broker
        self._backend = backend
        self._pulse = Pulse()
        self._beating: asyncio.Task[None] | None = None
        self.broker_up: bool | None = None
        self.backend_up: bool | None = None

    @property
    def lag(self) -> float | None:
        """Seconds by which the loop is late; ``None`` where none has been followed yet."""
        return None if self._pulse.last is None else self._pulse.lag

    async def lifespan(self) -> AsyncIterator[None]:
        """Follow the loop of a worker while it lives: the lifespan of this."""
        self._follow_loop()
        beating = self._beating
        yield
        if beating is not None and beating is self._beating:
            self._beating = None
            beating.cancel()
            await asyncio.wait([beating])

    async def look(self) -> None:
        """Ask the servers, and follow this loop from now on if none is followed."""
        self._follow_loop()
        backend = self._backend()
        kept = not isinstance(backend, DisabledBackend)
        asked = [_answers(self._broker().ping()), *([_answers(backend.ping())] if kept else [])]
        self.broker_up, *found = await asyncio.gather(*asked)
        self.backend_up = found[0] if found else None

    def forget(self) -> None:
        """Forget what the servers answered: they cannot be asked now."""
        self.broker_up = self.backend_up = None

    def _follow_loop(self) -> None:
        if self._beating is None or self._beating.done() or self._beating.get_loop().is_closed():
            self._pulse = Pulse()
            self._beating = asyncio.get_running_loop().create_task(self._pulse.run(), name="celeriac-vitals")


async def _answers(ping: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await ping
    except (CeleriacError, TimeoutError):
        return False
    return True
