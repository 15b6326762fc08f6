"""Takes messages from a SQLite file: hands out held messages first, then reserves new ones, else waits to be woken.

Rules: each look at the file begins with another queue. A take that is under way when the subscription stops still
returns its messages; the messages that are held go back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from celeriac.broker import Delivery
from celeriac.servers.queue_rows import TakenMessage
from celeriac.servers.reserve import Reserve
from celeriac.servers.row_receipt import RowReceipt
from celeriac.servers.sqlite.board import read_revision
from celeriac.servers.sqlite.queue_file import QueueFile, Taken

_LONGEST_WAIT = 15.0
"""Seconds for which a wait believes that it will be woken; then it looks at the file."""

_REVOKED_SINCE = 0.05
"""Seconds after which the revision is asked for again before messages that were reserved earlier start."""


class SqliteSubscription:
    """A hold on some queues; see ``celeriac.broker.Subscription``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._queues: deque[str] = deque()
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._stopped = False
        self._revision = 0
        self._asked_at = float("-inf")
        self._look_again: float | None = None
        self._reserve = Reserve(self._fetch, self._give_back)

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
            await self._wait(self._look_again)
        return []

    def held(self) -> Sequence[Delivery]:
        return self._reserve.held()

    async def let_go(self) -> None:
        await self._reserve.let_go()

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
        await self._reserve.close()

    async def add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            await self._file.attend(self._changed, queue)
            self._queues.append(queue)
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            await self._file.ignore(self._changed, [queue])
            await self._reserve.let_go(lambda delivery: delivery.queue == queue)

    async def _fetch(self, now: int, ahead: int) -> list[Delivery]:
        """Reserve what is there, and note when to look again."""
        asked = self._file.clock.monotonic()
        taken = await self._take(now, ahead)
        self._look_again = taken.look_again
        if taken.messages:
            self._revision = taken.revision
            self._asked_at = asked
        return [_delivery(self._file, message) for message in taken.messages]

    async def _take(self, now: int, ahead: int) -> Taken:
        async with self._taking:
            if self._stopped:
                return Taken()
            self._queues.rotate(-1)
            return await self._file.take(list(self._queues), now, ahead)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        receipts = [delivery.receipt for delivery in deliveries]
        await self._file.give_back(
            [one.settlement("return") for one in receipts if isinstance(one, RowReceipt)]
        )

    async def _look_for_revocations(self) -> None:
        """Learn what was revoked since the messages that are held were reserved."""
        now = self._file.clock.monotonic()
        if now > self._asked_at + _REVOKED_SINCE:
            self._revision = await self._file.link.read(read_revision)
            self._asked_at = now

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
    receipt = RowReceipt(file, message)
    return Delivery(message.envelope, message.queue, receipt, message.redelivered, message.deliveries + 1)
