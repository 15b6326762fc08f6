"""Takes messages from a PostgreSQL database: hands out held messages first, then reserves new ones, else sleeps.

Rules: each take begins with another queue. A take begins at the floors, and now and then, as after every sleep, at the
beginning, for what was given back or committed late. A take that is under way when the subscription stops still returns
its messages; the messages that are held go back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from celeriac.board import REVOKED
from celeriac.broker import Delivery
from celeriac.servers.postgres.board import REVISION
from celeriac.servers.postgres.queues import Look, Place, Queues, Taken
from celeriac.servers.postgres.sleeping import LOOKS, PULSE, SLEEP
from celeriac.servers.queue_rows import TakenMessage
from celeriac.servers.reserve import Reserve
from celeriac.servers.row_receipt import RowReceipt
from celeriac.wire.names import HIGHEST_PRIORITY

_REVOKED_SINCE = 0.05
"""Seconds after which the revision is asked for again before messages that were reserved earlier start."""

_FROM_THE_BEGINNING = 0.25
"""Seconds between takes that begin at the beginning, and looks for what came due, while there is enough to do."""


class PostgresSubscription:
    """A hold on some queues; see ``celeriac.broker.Subscription``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._names: deque[str] = deque()
        self._floors: dict[tuple[str, int], int] = {}
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._stopped = False
        self._revision = 0
        self._ahead = 0.0
        self._asked_at = float("-inf")
        self._begun_at = float("-inf")
        self._returns = queues.returns
        self._asleep_until = float("-inf")
        self._looks: deque[float] = deque()
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
            await self._sleep()
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
        dropped = list(self._names)
        self._names.clear()
        await self._queues.ignore(self._changed, dropped)
        async with self._taking:  # what is being taken right now is returned by its take
            pass
        await self._reserve.close()

    async def add_queue(self, queue: str) -> None:
        if queue not in self._names:
            await self._queues.attend(self._changed, queue)
            self._names.append(queue)
            self._asleep_until = float("-inf")
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._names:
            self._names.remove(queue)
            await self._queues.ignore(self._changed, [queue])
            await self._reserve.let_go(lambda delivery: delivery.queue == queue)

    # --- taking

    async def _fetch(self, now: int, ahead: int) -> list[Delivery]:
        """Reserve what is there."""
        clock = self._queues.clock
        asked = clock.monotonic()
        if self._returns != self._queues.returns:
            self._returns = self._queues.returns
            self._floors.clear()
        if asked >= self._begun_at + _FROM_THE_BEGINNING:
            self._floors.clear()
            self._begun_at = asked
            if ahead or not now:  # who sleeps looks by itself
                await self._queues.look(list(self._names))
        taken = await self._take(now, ahead)
        if not taken.messages and self._floors:
            self._floors.clear()
            taken = await self._take(now, ahead)
        if taken.messages:
            self._floors.update(taken.floors)
            self._revision = taken.revision
            self._ahead = taken.now - clock.now()
            self._asked_at = asked
        return [self._delivery(message) for message in taken.messages]

    async def _take(self, now: int, ahead: int) -> Taken:
        async with self._taking:
            if self._stopped or not self._names:
                return Taken()
            self._names.rotate(-1)
            return await self._queues.take(self._places(), now, ahead)

    def _places(self) -> list[Place]:
        """Return where to look: by priority over all the queues, and among equals in turn."""
        return [
            (queue, priority, self._floors.get((queue, priority), 0))
            for priority in range(HIGHEST_PRIORITY + 1)
            for queue in self._names
        ]

    def _delivery(self, message: TakenMessage) -> Delivery:
        receipt = RowReceipt(self._queues, message)
        return Delivery(message.envelope, message.queue, receipt, message.redelivered, message.deliveries + 1)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        receipts = [delivery.receipt for delivery in deliveries]
        await self._queues.give_back(
            [one.settlement("return") for one in receipts if isinstance(one, RowReceipt)]
        )

    async def _look_for_revocations(self) -> None:
        """Learn what was revoked since the messages that are held were reserved."""
        now = self._queues.clock.monotonic()
        if now > self._asked_at + _REVOKED_SINCE:
            self._revision = int(await self._queues.link.value(REVISION, REVOKED))
            self._asked_at = now

    # --- sleeping

    async def _sleep(self) -> None:
        """Return when there may be something to take."""
        self._floors.clear()
        if not self._names:
            await self._changed.wait()
            return
        clock = self._queues.clock
        while not self._changed.is_set():
            now = clock.monotonic()
            if now + PULSE >= self._asleep_until:
                is_new = now >= self._asleep_until
                await self._queues.fall_asleep(list(self._names))
                self._asleep_until = now + SLEEP
                if is_new:
                    self._looks = deque(now + seconds for seconds in LOOKS)
            look = await self._look()
            if look.found:
                return
            await self._wait(look.again)

    async def _look(self) -> Look:
        async with self._taking:
            if self._stopped:
                return Look(found=True)
            return await self._queues.look(list(self._names))

    async def _wait(self, again: float | None) -> None:
        now = self._queues.clock.monotonic()
        while self._looks and self._looks[0] <= now:
            self._looks.popleft()
        pause = min(PULSE, self._looks[0] - now if self._looks else PULSE, PULSE if again is None else again)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, pause)):
                await self._changed.wait()
