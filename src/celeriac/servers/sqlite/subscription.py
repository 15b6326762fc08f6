"""Takes messages from a SQLite file.

Rules: the order of the queues turns with every take; what is being taken when the subscription stops is still handed
out.
"""

from __future__ import annotations

import asyncio
from collections import deque

from celeriac.broker import Delivery
from celeriac.servers.sqlite.messages import TakenMessage
from celeriac.servers.sqlite.queue_file import QueueFile, Taken
from celeriac.servers.sqlite.receipt import SqliteReceipt

_LONGEST_WAIT = 15.0
"""Seconds for which a wait believes that it will be woken; then it looks at the file."""


class SqliteSubscription:
    """A hold on some queues; see ``celeriac.broker.Subscription``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._queues: deque[str] = deque()
        self._changed = asyncio.Event()
        self.prefetch = 0
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

    async def let_go(self) -> None:
        """Nothing is held that ``take`` did not return."""

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
