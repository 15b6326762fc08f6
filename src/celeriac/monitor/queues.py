"""How many messages wait in each queue of the broker; it is asked only while a page that shows them is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from celeriac.client.pausing import Pauses
from celeriac.clock import Clock
from celeriac.contracts.broker import Broker, QueueState, Survey, Surveyed
from celeriac.monitor.served import Served
from celeriac.wire.waiting import waits_since

FRESH = 1.0
"""Seconds for which an answer of the broker is shown again rather than asked for."""


class QueueRow(msgspec.Struct, frozen=True):
    """One queue.

    :param oldest: seconds for which its next message waits; ``None`` where neither the broker nor the message tells.
    """

    name: str
    waiting: int
    paused: bool = False
    oldest: float | None = None


class QueuesNow(msgspec.Struct, frozen=True):
    """The broker's messages at one moment.

    :param at: seconds since the epoch.
    """

    queues: tuple[QueueRow, ...]
    parked: int
    dead: int
    failed: int
    at: float

    @property
    def waiting(self) -> int:
        """Messages that wait, in all queues."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def oldest(self) -> float | None:
        """Seconds for which the oldest message of all queues waits, as far as that is known."""
        return max((queue.oldest for queue in self.queues if queue.oldest is not None), default=None)


class Queues:
    """Looks at a broker's queues, at most once in ``FRESH`` seconds for all callers together.

    :param served: the queues of workers, which the broker need not list.
    """

    def __init__(self, clock: Clock, served: Served) -> None:
        self._clock = clock
        self._served = served
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

    async def names(self, broker: Broker) -> list[str]:
        """Return the names of all queues. Raises ``BrokerError``."""
        return list(dict.fromkeys([*await broker.queues(), *self._served.names]))

    async def _look(self, broker: Broker, now: float) -> QueuesNow:
        names = await self.names(broker)
        found = await (broker.survey(names) if isinstance(broker, Surveyed) else _count(broker, names))
        paused = await Pauses(broker.board.sets).load()
        rows = tuple(
            QueueRow(state.queue, state.waiting, state.queue in paused, _age(state, now))
            for state in found.queues
        )
        return QueuesNow(rows, found.parked, found.dead, found.failed, now)


async def _count(broker: Broker, names: Sequence[str]) -> Survey:
    """Count the messages of a broker that cannot count all at once."""
    depths = await asyncio.gather(*map(broker.depth, names))
    parked, dead, failed = await asyncio.gather(
        broker.schedule.count(), broker.dead.count(), broker.failed.count()
    )
    states = [QueueState(name, depth) for name, depth in zip(names, depths, strict=True)]
    return Survey(states, parked, None, dead, failed)


def _age(state: QueueState, now: float) -> float | None:
    sent = [since for head in state.heads if (since := waits_since(head)) is not None]
    return max(0.0, now - min(sent)) if sent else None
