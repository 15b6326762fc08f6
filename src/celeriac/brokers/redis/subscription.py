"""Takes messages from queues: reserve what there is, else wait to be woken.

Rules: a message is on record in ``unacked`` and under our lease in the same step that removes it from its list; client
and server number the deliveries alike, so tags are never sent back; the queue that comes first changes every time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from celeriac.broker import Delivery
from celeriac.brokers.redis.doorbell import Doorbell
from celeriac.brokers.redis.keys import Keys, QueueLists
from celeriac.brokers.redis.leases import LeaseKeeper
from celeriac.brokers.redis.outbox import Outbox
from celeriac.brokers.redis.recovery import Recovery
from celeriac.brokers.redis.scripts import RESERVE
from celeriac.brokers.redis.settling import RedisReceipt, Settler
from celeriac.clock import Clock
from celeriac.redis_link import Link
from celeriac.wire.envelope import Unreadable
from celeriac.wire.frame import unpack

_log = logging.getLogger("celeriac.broker.redis")

_MOST_AT_ONCE = 1000


class RedisSubscription:
    """A hold on some queues; see ``celeriac.broker.Subscription``."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        outbox: Outbox,
        leases: LeaseKeeper,
        settler: Settler,
        recovery: Recovery,
        clock: Clock,
    ) -> None:
        self._link = link
        self._keys = keys
        self._outbox = outbox
        self._leases = leases
        self._settler = settler
        self._recovery = recovery
        self._clock = clock
        self._doorbell = Doorbell(link, keys.due)
        self._queues: list[str] = []
        self._rounds: list[_Round] = []
        self._turn = 0
        self._tags = uuid.uuid4().hex
        self._serial = 0
        self._recover_at = float("-inf")
        self._stopped = False
        self._complained: set[bytes] = set()

    async def take(self, limit: int) -> list[Delivery]:
        while not self._stopped:
            if self._clock.monotonic() >= self._recover_at:
                await self._recover()
            deliveries, due_in = await self._reserve(min(limit, _MOST_AT_ONCE))
            if deliveries:
                self._doorbell.found()
                return deliveries
            if await self._doorbell.arm(self._watched()) or self._stopped:
                continue
            await self._doorbell.wait(min(due_in, self._recover_at - self._clock.monotonic()))
        return []

    async def stop(self) -> None:
        self._stopped = True
        self._doorbell.ring()

    async def close(self) -> None:
        """Stop, and drop the connections that waiting used."""
        await self.stop()
        await self._doorbell.close()

    async def add_queue(self, queue: str) -> None:
        await self._outbox.declare([queue])
        if queue not in self._queues:
            self._queues.append(queue)
            self._plan()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            self._plan()

    def _plan(self) -> None:
        lists = [self._keys.lists_of(queue) for queue in self._queues]
        self._rounds = [_Round(self._keys, lists[turn:] + lists[:turn]) for turn in range(len(lists))]
        self._doorbell.ring()

    def _watched(self) -> Sequence[str]:
        return self._rounds[0].keys[4:] if self._rounds else (self._keys.due,)

    async def _recover(self) -> None:
        await self._doorbell.check()
        await self._recovery.run()
        self._recover_at = self._clock.monotonic() + self._leases.lease / 2

    async def _reserve(self, limit: int) -> tuple[list[Delivery], float]:
        """Return what was there, and the seconds until a parked message is due."""
        self._turn = (self._turn + 1) % max(1, len(self._rounds))
        order = self._rounds[self._turn] if self._rounds else _Round(self._keys, [])
        serial, self._serial = self._serial, self._serial + limit
        arguments = (limit, self._leases.lease, self._tags, serial, self._keys.prefix, *order.ends)
        due_in, trouble, *batches = await self._link.run(RESERVE, order.keys, arguments)
        self._complain(trouble)
        deliveries: list[Delivery] = []
        for number, raws in zip(batches[::2], batches[1::2], strict=True):
            self._deliver(deliveries, order, number, raws, serial + len(deliveries))
        return deliveries, float(due_in) if due_in else float("inf")

    def _deliver(
        self, deliveries: list[Delivery], order: _Round, number: int, raws: Sequence[bytes], serial: int
    ) -> None:
        queue, step = order.places[number]
        tags = [f"{self._tags}.{serial + offset:012d}:{step}" for offset in range(len(raws))]
        self._leases.hold(tags)
        settler = self._settler
        for tag, raw in zip(tags, raws, strict=True):
            envelope = unpack(raw)
            redelivered = not isinstance(envelope, Unreadable) and envelope.redelivered
            deliveries.append(Delivery(envelope, queue, RedisReceipt(settler, tag, queue, raw), redelivered))

    def _complain(self, trouble: Sequence[bytes]) -> None:
        for text in trouble:
            if text not in self._complained:
                self._complained.add(text)
                _log.error(
                    "a queue of %s cannot be read: %s", self._link.target, text.decode(errors="replace")
                )


class _Round:
    """What one order of the queues asks of the reserving script."""

    __slots__ = ("ends", "keys", "places")

    def __init__(self, keys: Keys, lists: Sequence[QueueLists]) -> None:
        steps = range(len(keys.steps))
        ordered = [(queue, step) for step in steps for queue in lists]
        self.keys = (
            keys.unacked,
            keys.index,
            keys.leases,
            keys.due,
            *(queue.keys[step] for queue, step in ordered),
        )
        self.places = [(queue.queue, queue.steps[step]) for queue, step in ordered]
        self.ends: list[Any] = []
        for queue, step in ordered:
            self.ends += queue.tail, queue.steps[step]
