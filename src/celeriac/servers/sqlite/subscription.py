"""Takes messages from a SQLite file, and settles them.

Rules: the order of the queues turns with every take; what is being taken when the subscription stops is still handed
out.
"""

from __future__ import annotations

import asyncio
from collections import deque

from celeriac.broker import Delivery
from celeriac.errors import BrokerError, DeliveryLost
from celeriac.servers.sqlite.messages import Settlement, TakenMessage, Verb
from celeriac.servers.sqlite.queue_file import QueueFile, Taken

_LONGEST_WAIT = 15.0
"""Seconds for which a wait believes that it will be woken; then it looks at the file."""


class SqliteReceipt:
    """The right to settle one delivery; see ``celeriac.broker.Receipt``."""

    __slots__ = ("_file", "_message", "_spent")

    def __init__(self, file: QueueFile, message: TakenMessage) -> None:
        self._file = file
        self._message = message
        self._spent = False

    async def ack(self, *, surely: bool = False) -> None:
        await self._settle("ack")

    async def requeue(self) -> None:
        await self._settle("requeue")

    async def park(self, due: float) -> None:
        await self._settle("park", due)

    async def bury(self, reason: str) -> None:
        await self._settle("bury", reason)

    async def _settle(self, verb: Verb, detail: float | str | None = None) -> None:
        message = self._message
        if self._spent:
            raise DeliveryLost(f"message {message.id} of queue {message.queue!r} was settled before")
        self._spent = True
        try:
            await self._file.settle(Settlement(verb, message.id, message.owner, message.queue, detail))
        except BrokerError:
            self._spent = False
            raise


class SqliteSubscription:
    """A hold on some queues; see ``celeriac.broker.Subscription``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._queues: deque[str] = deque()
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._stopped = False
        self._revision = 0

    async def take(self, limit: int) -> list[Delivery]:
        while not self._stopped:
            self._changed.clear()
            taken = await self._take(limit)
            if taken.messages:
                self._revision = taken.revision
                return [_delivery(self._file, message) for message in taken.messages]
            await self._wait(taken.look_again)
        return []

    @property
    def ahead(self) -> float:
        return 0.0

    @property
    def revision(self) -> int:
        return self._revision

    async def stop(self) -> None:
        self._stopped = True
        self._changed.set()
        dropped = list(self._queues)
        self._queues.clear()
        await self._file.ignore(self._changed, dropped)
        async with self._taking:  # what is being taken right now is returned by its take
            pass

    async def add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            await self._file.attend(self._changed, queue)
            self._queues.append(queue)
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            await self._file.ignore(self._changed, [queue])

    async def _take(self, limit: int) -> Taken:
        async with self._taking:
            if self._stopped:
                return Taken()
            self._queues.rotate(-1)
            return await self._file.take(list(self._queues), limit)

    async def _wait(self, until: float | None) -> None:
        pause = _LONGEST_WAIT
        if until is not None:
            pause = min(pause, max(0.001, until - self._file.clock.now()))
        alarm = asyncio.get_running_loop().call_later(pause, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            alarm.cancel()


def _delivery(file: QueueFile, message: TakenMessage) -> Delivery:
    receipt = SqliteReceipt(file, message)
    return Delivery(message.envelope, message.queue, receipt, message.redelivered, message.deliveries + 1)
