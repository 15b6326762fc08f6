"""What waits where, as the broker tells it; asked only while somebody looks."""

from __future__ import annotations

import asyncio

import msgspec

from celeriac.broker import Broker
from celeriac.client.pausing import Pauses
from celeriac.clock import Clock

FRESH = 1.0
"""Seconds for which an answer of the broker is shown again rather than asked for."""


class QueueRow(msgspec.Struct, frozen=True):
    """One queue."""

    name: str
    waiting: int
    paused: bool = False


class QueuesNow(msgspec.Struct, frozen=True):
    """The broker's messages at one moment.

    :param at: seconds since the epoch.
    """

    queues: tuple[QueueRow, ...]
    parked: int
    dead: int
    at: float

    @property
    def waiting(self) -> int:
        """Messages that wait, in all queues."""
        return sum(queue.waiting for queue in self.queues)


class Queues:
    """Looks at a broker's queues, at most once in ``FRESH`` seconds for all who ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: QueuesNow | None = None
        self._looking = asyncio.Lock()

    async def now(self, broker: Broker) -> QueuesNow:
        """Return what waits. Raises ``BrokerError``."""
        async with self._looking:
            now = self._clock.now()
            if self._seen is None or not 0 <= now - self._seen.at < FRESH:
                self._seen = await self._look(broker, now)
            return self._seen

    def forget(self) -> None:
        """Ask again next time: something was changed."""
        self._seen = None

    async def _look(self, broker: Broker, now: float) -> QueuesNow:
        names = await broker.queues()
        depths = await asyncio.gather(*map(broker.depth, names))
        parked, dead = await asyncio.gather(broker.schedule.count(), broker.dead.count())
        paused = await Pauses(broker.board.sets).load()
        rows = (QueueRow(name, depth, name in paused) for name, depth in zip(names, depths, strict=True))
        return QueuesNow(tuple(rows), parked, dead, now)
