"""What waits at the broker: counted when it is asked for, at most each ``FRESH`` seconds.

Rules: one process of all that serve these numbers reports them, whichever has the lease, so that a sum over the
processes is right. The age of the oldest message is known where messages tell when they were sent; else it is at least
the time for which the same message was seen at the head of its queue, or for which nobody took from the queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from celeriac.client.pausing import Pauses
from celeriac.contracts.broker import Broker, QueueState, Survey, Surveyed
from celeriac.errors import CeleriacError
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.waiting import waits_since

FRESH = 5.0
"""Seconds for which numbers are served again, unless told otherwise."""

NAMES_FRESH = 60.0
"""Seconds for which the list of all queues is kept: on Redis it takes a scan of all keys."""

FIRST_PATIENCE, PATIENCE = 0.5, 0.04
"""Seconds for which a scrape waits for the broker: where no numbers are known yet, and where there are older ones."""

LEASE, LEASE_SECONDS = "metrics.queues", 75.0
"""The right to tell the numbers, and how long it lasts: longer than the pause between two scrapes mostly is."""


class QueueNumbers(msgspec.Struct, frozen=True):
    """The numbers of one queue.

    :param oldest: seconds for which its oldest message waits, 0 where none does; ``None`` where the broker hides it.
    :param at_least: whether ``oldest`` is a lower bound.
    :param consumers: how many take from it; ``None`` where the broker does not count them.
    :param paused: whether workers are to leave it alone.
    """

    queue: str
    waiting: int
    oldest: float | None
    at_least: bool = False
    consumers: int | None = None
    paused: bool = False


class BrokerNumbers(msgspec.Struct, frozen=True):
    """The numbers of one broker."""

    queues: Sequence[QueueNumbers] = ()
    parked: int | None = None
    taken: int | None = None
    dead: int | None = None
    failed: int | None = None


class QueueReader:
    """Reads the numbers of one broker.

    :param broker: returns the broker, in the event loop that reads.
    :param own: returns queues to tell of even if the broker does not know them yet.
    :param now: seconds since the epoch.
    :param always: tell the numbers without the lease.
    :param fresh: seconds for which numbers are served again.
    """

    def __init__(
        self,
        broker: Callable[[], Broker],
        own: Callable[[], Sequence[str]] = tuple,
        now: Callable[[], float] = time.time,
        *,
        always: bool = False,
        fresh: float = FRESH,
    ) -> None:
        self._fresh = fresh
        self._broker = broker
        self._own = own
        self._now = now
        self._always = always
        self._holder = f"{socket.gethostname()}.{os.getpid()}.{id(self)}"
        self._names: Sequence[str] = ()
        self._names_until = float("-inf")
        self._until = float("-inf")
        self._numbers: BrokerNumbers | None = None
        self._seen: dict[str, tuple[str, float]] = {}
        self._untouched: dict[str, tuple[int, float]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._is_first = True

    async def read(self) -> BrokerNumbers | None:
        """Return the numbers, ``None`` where another process reports them, or the broker does not answer.

        Where the broker takes longer, these are the numbers from before, and the next call returns the new ones.
        """
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + self._fresh
            self._reading = asyncio.create_task(self._refresh())
        if (reading := self._reading) is not None and reading.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([reading], timeout=FIRST_PATIENCE if self._is_first else PATIENCE)
        return self._numbers

    async def _refresh(self) -> None:
        try:
            self._numbers = await self._survey() if await self._is_ours() else None
        except CeleriacError:
            self._numbers = None
        self._is_first = False

    async def release(self) -> None:
        """Let another process tell the numbers."""
        leases = self._broker().board.leases
        if leases is not None and not self._always:
            await leases.release(LEASE, self._holder)

    async def _is_ours(self) -> bool:
        if self._always:
            return True
        leases = self._broker().board.leases
        return leases is None or bool(await leases.hold(LEASE, self._holder, LEASE_SECONDS))

    async def _survey(self) -> BrokerNumbers:
        broker = self._broker()
        if time.monotonic() >= self._names_until:
            self._names = await broker.queues()
            self._names_until = time.monotonic() + NAMES_FRESH
        names = sorted({*self._names, *self._own()})
        looks = isinstance(broker, Surveyed) and broker.shows_heads
        survey = broker.survey(names) if isinstance(broker, Surveyed) else _count(broker, names)
        found, paused = await asyncio.gather(survey, Pauses(broker.board.sets).load())
        counted = [self._seen_of(state) if looks else self._counted(state) for state in found.queues]
        numbers = [msgspec.structs.replace(one, paused=one.queue in paused) for one in counted]
        self._seen = {queue: seen for queue, seen in self._seen.items() if queue in names}
        self._untouched = {queue: since for queue, since in self._untouched.items() if queue in names}
        return BrokerNumbers(numbers, found.parked, found.taken, found.dead, found.failed)

    def _counted(self, state: QueueState) -> QueueNumbers:
        """Return the numbers of a queue whose messages cannot be looked at.

        Its oldest message waits at least since the queue was seen without consumers, and with no fewer messages later.
        """
        if state.consumers is None:
            return QueueNumbers(state.queue, state.waiting, None)
        now = self._now()
        before, since = self._untouched.pop(state.queue, (state.waiting, now))
        if state.waiting and not state.consumers:
            self._untouched[state.queue] = state.waiting, since if state.waiting >= before else now
        age = max(0.0, now - self._untouched.get(state.queue, (0, now))[1])
        return QueueNumbers(state.queue, state.waiting, age, state.waiting > 0, state.consumers)

    def _seen_of(self, state: QueueState) -> QueueNumbers:
        """Return the numbers of a queue whose next messages were looked at."""
        if not state.heads:
            self._seen.pop(state.queue, None)
            return QueueNumbers(state.queue, state.waiting, 0.0)
        now = self._now()
        ages = [now - sent for head in state.heads if (sent := waits_since(head)) is not None]
        if len(ages) == len(state.heads):
            return QueueNumbers(state.queue, state.waiting, max(0.0, *ages))
        head = _identity(state.heads[0])
        if (seen := self._seen.get(state.queue)) is None or seen[0] != head:
            seen = self._seen[state.queue] = (head, now)
        return QueueNumbers(state.queue, state.waiting, max(0.0, now - seen[1], *ages), at_least=True)


async def _count(broker: Broker, names: Sequence[str]) -> Survey:
    states = [QueueState(name, await broker.depth(name)) for name in names]
    return Survey(
        states, await broker.schedule.count(), None, await broker.dead.count(), await broker.failed.count()
    )


def _identity(head: Envelope | Unreadable) -> str:
    if isinstance(head, Envelope):
        return f"{head.headers.get('id')} {head.correlation_id} {head.delivery_tag}"
    return repr(head)[:200]
