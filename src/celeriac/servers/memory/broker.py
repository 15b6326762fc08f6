"""A broker inside one process, for tests and for programs that need no other.

Rules: messages are encoded as frames, so that a message which no other broker could carry fails here, too. Two brokers
share nothing. No message outlives the process. The next message of a queue is the one with the lowest priority number,
then the one published first, so a message that comes back is ahead of those that were never taken.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from heapq import heapify, nsmallest
from itertools import islice

from celeriac.clock import Clock, SystemClock
from celeriac.contracts.board import REVOKED, Mark
from celeriac.contracts.broker import Delivery, Parked, Schedule, Subscription, Survey
from celeriac.contracts.removal import Removed, Unwanted
from celeriac.contracts.set_aside import Cap, DeadLetter, DeadLetters, Failed
from celeriac.errors import Finding
from celeriac.servers.memory.board import MemoryBoard, MemoryMarks
from celeriac.servers.memory.failed import MemoryFailed
from celeriac.servers.memory.fanout import MemoryFanout
from celeriac.servers.memory.lines import Dead, Lines, Message, dead_letter, lost, parked_of, read
from celeriac.servers.queue_rows import row_ids
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import pack
from celeriac.wire.names import HIGHEST_PRIORITY
from celeriac.wire.once import ONCE, ONCE_SETTLED
from celeriac.wire.preview import counted

_ONCE_FEW = 1000
"""How many keys may be added before those that ended are looked for."""


class MemoryBroker:
    """Keeps messages in the memory of this process. Use it from one event loop.

    :param clock: tells the time for parked and dead messages.
    :param failed: how much the failed list keeps.
    """

    may_repeat = False
    tells_taken = shows_heads = True
    removal_reach = None

    def __init__(self, clock: Clock = SystemClock(), *, failed: Cap = Cap()) -> None:  # noqa: B008 - no state
        self._clock = clock
        self._once: dict[str, float] = {}
        self._once_full = _ONCE_FEW
        self._failed = MemoryFailed(clock, failed)
        self._lines = Lines(clock, self._failed)
        self._board = MemoryBoard(clock)
        self._fanout = MemoryFanout()
        self._subscriptions: set[_MemorySubscription] = set()

    async def publish(self, envelope: Envelope, route: Route) -> None:
        self._lines.add(self._message(envelope, route), route.due)

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        for message, due in [(self._message(envelope, route), route.due) for envelope, route in messages]:
            self._lines.add(message, due)

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        now = self._clock.now()
        if self._once.get(key, now) > now:
            return False
        if len(self._once) >= self._once_full:
            self._once = {known: until for known, until in self._once.items() if until > now}
            self._once_full = 2 * len(self._once) + _ONCE_FEW
        await self.publish_many(messages)
        self._once[key] = now + ONCE
        return True

    async def forget_once(self, key: str) -> None:
        if key in self._once:
            self._once[key] = self._clock.now() + ONCE_SETTLED

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[Subscription]:
        subscription = _MemorySubscription(self._lines, self._board, queues)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            await subscription.stop()
            self._subscriptions.discard(subscription)

    async def queues(self) -> list[str]:
        return sorted(self._lines.waiting)

    async def depth(self, queue: str) -> int:
        return len(self._lines.waiting.get(queue, ()))

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        return [read(message) for message in nsmallest(limit, self._lines.waiting.get(queue, ()))]

    async def survey(self, queues: Sequence[str]) -> Survey:
        """Count all messages; see ``celeriac.contracts.broker.Surveyed``."""
        return self._lines.survey(queues, await self._failed.count())

    async def purge(self, queue: str) -> int:
        line = self._lines.waiting.get(queue, [])
        purged = len(line)
        line.clear()
        return purged

    async def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove single messages; see ``celeriac.contracts.removal.Removing``."""
        line = self._lines.waiting.get(queue, [])
        looked = [(message, read(message)) for message in sorted(line)]
        gone = [pair for pair in looked if unwanted(pair[1])]
        for message, _ in gone:
            line.remove(message)
        heapify(line)
        yield Removed(len(looked), [content for _, content in gone])

    @property
    def dead(self) -> DeadLetters:
        return _MemoryDeadLetters(self._lines)

    @property
    def failed(self) -> MemoryFailed:
        """The failed list."""
        return self._failed

    @property
    def schedule(self) -> Schedule:
        return _MemorySchedule(self._lines, self._clock)

    @property
    def board(self) -> MemoryBoard:
        return self._board

    @property
    def fanout(self) -> MemoryFanout:
        """Fanout inside this process."""
        return self._fanout

    @property
    def transactions(self) -> None:
        """Nothing here has transactions."""
        return None

    @property
    def beat(self) -> MemoryBeat:
        """Ticks of periodic tasks."""
        return MemoryBeat(self)

    async def ping(self) -> str:
        return f"memory of this process, {counted(len(self._lines.waiting), 'queue')}"

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        return ()

    async def close(self) -> None:
        """Stop the subscriptions and the timers; what was held or parked waits in its queue again."""
        for subscription in self._subscriptions:
            await subscription.stop()
        self._lines.recall()

    def _message(self, envelope: Envelope, route: Route) -> Message:
        frame = pack(envelope, delivery_tag=envelope.delivery_tag or str(uuid.uuid4()), route=route)
        priority = min(max(envelope.priority, 0), HIGHEST_PRIORITY)
        return Message(priority, self._lines.next_serial(), route.queue or route.routing_key, frame)


class MemoryBeat:
    """See ``celeriac.contracts.broker.Beat``."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        slots = self._broker.board.slots
        if not slots.is_before(entry, slot):
            return False
        await self._broker.publish_many(messages)  # raises before it adds any, and never waits
        return await slots.advance(entry, slot)

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return await self._broker.board.slots.last(entries)


class _MemoryReceipt:
    __slots__ = ("_lines", "_marks", "_message", "_spent")

    def __init__(self, lines: Lines, marks: MemoryMarks, message: Message) -> None:
        self._lines = lines
        self._marks = marks
        self._message = message
        self._spent = False

    async def ack(self, *, surely: bool = False) -> None:
        self._spend()
        self._lines.settle(self._message)

    async def requeue(self) -> None:
        self._spend()
        self._lines.give_back(self._message)

    async def park(self, due: float) -> None:
        self._spend()
        self._lines.park(self._message, due)

    async def bury(self, reason: str) -> None:
        self._spend()
        self._lines.bury(self._message, reason)

    async def fail(self, failed: Failed) -> None:
        self._spend()
        self._lines.fail(self._message, failed)

    async def settle_and_unmark(self, mark: Mark, kept: str | Failed | None = None) -> None:
        """See ``celeriac.contracts.broker.UnmarkingReceipt``."""
        if isinstance(kept, Failed):
            await self.fail(kept)
        else:
            await (self.ack() if kept is None else self.bury(kept))
        self._marks.take_down(mark.key, mark.name, mark.value)

    def _spend(self) -> None:
        if self._spent:
            raise lost(self._message)
        self._spent = True


class _MemorySubscription:
    def __init__(self, lines: Lines, board: MemoryBoard, queues: Sequence[str]) -> None:
        self._lines = lines
        self._board = board
        self._revision = 0
        self._queues = deque(dict.fromkeys(queues))
        self.prefetch = self.backlog = 0
        self.idle = False
        self._changed = asyncio.Event()
        self._stopped = False
        for queue in queues:
            lines.declare(queue)

    async def take(self, limit: int) -> list[Delivery]:
        while not self._stopped:
            taken = self._lines.take(self._queues, limit)
            if taken:
                self._revision = self._board.sets.number(REVOKED)
                return [self._delivery(message) for message in taken]
            await self._wait()
        return []

    def held(self) -> Sequence[Delivery]:
        return ()

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

    async def add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            self._lines.declare(queue)
            self._queues.append(queue)
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)

    async def _wait(self) -> None:
        self._changed.clear()
        self._lines.changed.add(self._changed)
        try:
            await self._changed.wait()
        finally:
            self._lines.changed.discard(self._changed)

    def _delivery(self, message: Message) -> Delivery:
        receipt = _MemoryReceipt(self._lines, self._board.marks, message)
        return Delivery(read(message), message.queue, receipt, message.redelivered)


class _MemoryDeadLetters:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def list(self, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        entries = islice(self._lines.dead.items(), offset, offset + limit)
        return [dead_letter(name, dead) for name, dead in entries]

    async def count(self) -> int:
        return len(self._lines.dead)

    async def retry(self, ids: Sequence[str]) -> int:
        found = self._remove(ids)
        for dead in found:
            dead.message.serial = self._lines.next_serial()
            self._lines.enqueue(dead.message)
        return len(found)

    async def delete(self, ids: Sequence[str]) -> int:
        return len(self._remove(ids))

    def _remove(self, ids: Sequence[str]) -> Sequence[Dead]:
        present = [name for name in dict.fromkeys(ids) if name in self._lines.dead]
        return [self._lines.dead.pop(name) for name in present]


class _MemorySchedule:
    def __init__(self, lines: Lines, clock: Clock) -> None:
        self._lines = lines
        self._clock = clock

    async def list(self, limit: int = 100, offset: int = 0) -> list[Parked]:
        waiting = sorted(
            self._lines.parked.values(), key=lambda waiting: (waiting.due, waiting.message.serial)
        )
        return [parked_of(entry) for entry in waiting[offset : offset + limit]]

    async def count(self) -> int:
        return len(self._lines.parked)

    async def delete(self, ids: Sequence[str]) -> int:
        return sum(self._lines.unpark(number) for number in row_ids(ids))

    async def horizon(self) -> float:
        now = self._clock.now()
        return max((waiting.due - now for waiting in self._lines.parked.values()), default=0.0)
