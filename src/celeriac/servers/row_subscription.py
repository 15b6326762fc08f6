"""Takes messages out of tables: held messages come first, then reserved ones, else it waits; whatever the database.

Rules: each take begins with another queue. A take that is under way when the subscription stops still returns its
messages; the messages that are held go back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.broker import Delivery
from celeriac.servers.queue_rows import Settlement, TakenMessage
from celeriac.servers.reserve import Reserve
from celeriac.servers.row_receipt import Keeper, RowReceipt

_REVOKED_SINCE = 0.05
"""Seconds after which the revision is asked for again before messages that were reserved earlier start."""


class Taken(msgspec.Struct, frozen=True):
    """The result of a take.

    :param revision: of the revocations, where messages were found.
    :param ahead: seconds by which the database's clock is ahead of this process's, where messages were found.
    :param drained: whether it is known that nothing else was there to take.
    """

    messages: Sequence[TakenMessage] = ()
    revision: int = 0
    ahead: float = 0.0
    drained: bool = False


class Waker(Protocol):
    """What tells that there may be something new in a queue."""

    async def attend(self, event: asyncio.Event, queue: str) -> None:
        """Declare the queue; set the event whenever it may have got a message."""
        ...

    async def ignore(self, event: asyncio.Event, queues: Collection[str], /) -> None:
        """Set the event for these queues no longer."""
        ...


class Source(Keeper, Protocol):
    """The queues of one database, as all subscriptions of a broker use them."""

    @property
    def clock(self) -> Clock: ...

    async def give_back(self, settlements: Sequence[Settlement]) -> None:
        """Put messages that never started back as they came."""
        ...

    async def revision(self) -> int:
        """Return the number of the last change of the revocations."""
        ...


class Taker(Protocol):
    """How one subscription takes and waits; it has what it remembers from one take to the next."""

    async def take(self, queues: Sequence[str], now: int, ahead: int) -> Taken:
        """Take messages, the first queue first; ``now`` that can start, and ``ahead`` more."""
        ...

    async def wait(self, queues: Sequence[str], changed: asyncio.Event, taking: asyncio.Lock) -> None:
        """Return when there may be something to take, or the event is set.

        :param taking: to be held while the database is asked; then the event being set may mean that all is over.
        """
        ...

    def added(self) -> None:
        """Note that there is a further queue."""
        ...


class RowSubscription:
    """A hold on some queues; see ``celeriac.contracts.broker.Subscription``."""

    def __init__(self, source: Source, waker: Waker, taker: Taker) -> None:
        self._source = source
        self._waker = waker
        self._taker = taker
        self._queues: deque[str] = deque()
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._stopped = False
        self._revision = 0
        self._ahead = 0.0
        self._asked_at = float("-inf")
        self._reserve = Reserve(self._fetch, self._give_back)
        self.backlog = 0
        self.idle = False

    @property
    def is_behind(self) -> bool:
        """Whether it holds messages."""
        return bool(self._reserve)

    @property
    def prefetch(self) -> int:
        return self._reserve.most

    @prefetch.setter
    def prefetch(self, most: int) -> None:
        self._reserve.most = most

    async def take(self, limit: int) -> list[Delivery]:
        while not self._stopped:
            self._changed.clear()
            if self._reserve:
                await self._look_for_revocations()
            if deliveries := await self._reserve.take(limit):
                return deliveries
            if self._queues:
                await self._taker.wait(list(self._queues), self._changed, self._taking)
            else:
                await self._changed.wait()
        return []

    def held(self) -> Sequence[Delivery]:
        return self._reserve.held()

    async def let_go(self) -> None:
        await self._reserve.let_go()

    @property
    def ahead(self) -> float:
        return self._ahead

    @property
    def revision(self) -> int:
        return self._revision

    async def stop(self) -> None:
        self._stopped = True
        self._changed.set()
        dropped = list(self._queues)
        self._queues.clear()
        await self._waker.ignore(self._changed, dropped)
        async with self._taking:  # what is being taken right now is returned by its take
            pass
        await self._reserve.close()

    async def add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            await self._waker.attend(self._changed, queue)
            self._queues.append(queue)
            self._taker.added()
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            await self._waker.ignore(self._changed, [queue])
            await self._reserve.let_go(lambda delivery: delivery.queue == queue)

    async def _fetch(self, now: int, ahead: int) -> list[Delivery]:
        """Reserve what is there."""
        async with self._taking:
            if self._stopped or not self._queues:
                return []
            self._queues.rotate(-1)
            asked = self._source.clock.monotonic()
            taken = await self._taker.take(list(self._queues), now, ahead)
        if taken.messages:
            self._revision = taken.revision
            self._ahead = taken.ahead
            self._asked_at = asked
        return [self._delivery(message) for message in taken.messages]

    def _delivery(self, message: TakenMessage) -> Delivery:
        receipt = RowReceipt(self._source, message)
        return Delivery(message.envelope, message.queue, receipt, message.redelivered, message.deliveries + 1)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        receipts = [delivery.receipt for delivery in deliveries]
        await self._source.give_back(
            [one.settlement("return") for one in receipts if isinstance(one, RowReceipt)]
        )

    async def _look_for_revocations(self) -> None:
        """Learn what was revoked since the messages that are held were reserved."""
        now = self._source.clock.monotonic()
        if now > self._asked_at + _REVOKED_SINCE:
            self._revision = await self._source.revision()
            self._asked_at = now
