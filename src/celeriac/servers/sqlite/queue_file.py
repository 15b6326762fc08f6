"""The queues of one SQLite file, as one process uses them: adds, takes and settles messages, and wakes subscriptions.

Rules: publishes and settlements of concurrent callers share transactions. A change that makes a message ready wakes the
subscriptions of its queue, in this process and in the others.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import TypeVar

from celeriac.clock import Clock
from celeriac.contracts.set_aside import Cap
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.servers.queue_calls import STAYS, Addition, QueueCalls, Tick
from celeriac.servers.queue_rows import NewMessage, Settlement
from celeriac.servers.row_subscription import Taken
from celeriac.servers.sqlite.board import advance_slot, read_revision, take_down
from celeriac.servers.sqlite.limits import FileLimits
from celeriac.servers.sqlite.link import SqliteLink
from celeriac.servers.sqlite.messages import SqliteMessages
from celeriac.servers.sqlite.owners import Owners
from celeriac.servers.sqlite.tables import QUEUES

T = TypeVar("T")


class QueueFile:
    """The queues of one file: what the parts of one broker share."""

    def __init__(
        self, path: str, clock: Clock, lease: float, cap: Cap, limits: FileLimits, *, group: bool
    ) -> None:
        self.link = SqliteLink(
            path,
            QUEUES,
            clock,
            away=BrokerUnavailable,
            refused=BrokerError,
            group=group,
            busy=limits.busy,
            on_new_file=lambda connection: self.messages.declare(connection, list(self._known)),
        )
        self._owners = Owners(self.link.path, clock, lease)
        self.messages = SqliteMessages(clock, self._owners, cap, limits.batch)
        self.clock = clock
        self._look = limits.look
        self.calls = QueueCalls(self.add, self._add_once, self._tick_all, self._forget_once, self._settle)
        self.settle = self.calls.settle
        self._known: set[str] = set()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._attending = False
        self._beginning = asyncio.Lock()

    async def attend(self, event: asyncio.Event, queue: str) -> None:
        """Declare the queue; set the event whenever it may have got a message, from any process."""
        await self.link.write(lambda connection: self.messages.declare(connection, [queue]))
        self._known.add(queue)
        await self.hear(event, [queue])

    async def hear(self, event: asyncio.Event, topics: Collection[str]) -> None:
        """Set the event whenever any process has news for one of the topics; the name of a queue is a topic."""
        async with self._beginning:
            if not self._attending:
                await self.link.listen(self.ring_all, self._look)
                self._attending = True
        await self.link.hear(topics)
        for topic in topics:
            self._waiting.setdefault(topic, set()).add(event)

    async def ignore(self, event: asyncio.Event, topics: Collection[str]) -> None:
        """Set the event for these topics no longer."""
        for topic in topics:
            self._waiting[topic].discard(event)
        unheard = [topic for topic in topics if not self._waiting[topic]]
        for topic in unheard:
            del self._waiting[topic]
        with suppress(BrokerError):  # a poke too many does no harm
            await self.link.ignore(unheard)

    async def add(self, messages: Sequence[NewMessage]) -> list[None]:
        queues = {message.queue for message in messages}
        await self.link.write(lambda connection: self.add_in(connection, messages), lambda: queues)
        self.published(queues)
        return [None] * len(messages)

    def add_in(self, connection: sqlite3.Connection, messages: Sequence[NewMessage]) -> None:
        """Add the messages within the transaction of the caller, in the file's thread."""
        if messages:
            self._add(connection, messages, {message.queue for message in messages} - self._known)

    def unmark_in(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
        """Remove the marks that go with these settlements, within the transaction of the caller."""
        if marks := [one.mark for one in settlements if one.mark is not None]:
            take_down(connection, marks, self.clock.now())

    def published(self, queues: Collection[str]) -> None:
        """Note that these queues exist now, and wake their subscriptions."""
        self._known.update(queues)
        self.ring(queues)

    async def _add_once(self, additions: Sequence[Addition]) -> list[bool]:
        """Add what is not done under its key yet; return of each whether it was added."""
        queues = {message.queue for _, messages in additions for message in messages}

        def whole(connection: sqlite3.Connection) -> list[bool]:
            new = [self.messages.note_once(connection, key) for key, _ in additions]
            added = [messages for (_, messages), is_new in zip(additions, new, strict=True) if is_new]
            self._add(connection, list(chain.from_iterable(added)), queues)
            return new

        new = await self.link.write(whole, lambda: queues)
        self.ring(queues)
        return new

    async def _tick_all(self, ticks: Sequence[Tick]) -> list[bool]:
        """Add the messages of each slot that is later than its entry's last one; return of each whether it was."""
        queues = {message.queue for _, _, messages in ticks for message in messages}

        def whole(connection: sqlite3.Connection) -> list[bool]:
            now = self.clock.now()
            new = [advance_slot(connection, entry, slot, now) for entry, slot, _ in ticks]
            added = [messages for (_, _, messages), is_new in zip(ticks, new, strict=True) if is_new]
            self._add(connection, list(chain.from_iterable(added)), queues)
            return new

        new = await self.link.write(whole, lambda: queues)
        self.ring(queues)
        return new

    async def _forget_once(self, keys: Sequence[str]) -> list[None]:
        await self.link.write(lambda connection: self.messages.forget_once(connection, keys))
        return [None] * len(keys)

    async def take(self, queues: Sequence[str], now: int, ahead: int = 0) -> tuple[Taken, float | None]:
        """Take messages, or learn when to look again, in seconds since the epoch.

        :param now: how many can start now.
        :param ahead: how many more may be taken, as long as they are not large.
        """

        def job(connection: sqlite3.Connection) -> tuple[Taken, float | None]:
            messages = self.messages.take(connection, queues, now, ahead)
            if messages:
                return Taken(messages, read_revision(connection)), None
            return Taken(), self.messages.next_revival(connection)

        return await self.revived(job)

    async def revision(self) -> int:
        return await self.link.read(read_revision)

    async def give_back(self, settlements: Sequence[Settlement]) -> None:
        """Put messages that never started back as they came. What was lost meanwhile is another's already."""
        await self._settle(settlements)

    async def revived(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run the job on queues that are up to date; wake the subscriptions of those that got messages."""
        changed: set[str] = set()

        def whole(connection: sqlite3.Connection) -> T:
            changed.update(self.messages.revive(connection))
            return job(connection)

        value = await self.link.write(whole, lambda: changed)
        self.ring(changed)
        return value

    async def retry_dead(self, ids: Sequence[int]) -> int:
        queues: list[str] = []
        await self.link.write(
            lambda connection: queues.extend(self.messages.retry_dead(connection, ids)), lambda: set(queues)
        )
        self.ring(set(queues))
        return len(queues)

    def ring(self, topics: Collection[str]) -> None:
        """Set the events of this process that wait for one of the topics."""
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def ring_all(self) -> None:
        self.ring(list(self._waiting))

    async def close(self) -> None:
        await self.calls.drain()
        if self.link.is_open:
            with suppress(BrokerError):  # others put our messages back once they find our lock gone
                await self._release()
        await self.link.close()
        self._owners.let_go()
        self._attending = False
        self._known.clear()

    async def _release(self) -> None:
        queues: set[str] = set()
        await self.link.write(
            lambda connection: queues.update(self.messages.release(connection)), lambda: queues
        )

    def _add(
        self, connection: sqlite3.Connection, messages: Sequence[NewMessage], unknown: Collection[str]
    ) -> None:
        if unknown:
            self.messages.declare(connection, unknown)
        self.messages.add(connection, messages)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[DeliveryLost | None]:
        changed = {settlement.queue for settlement in settlements if settlement.verb in STAYS}

        def settle(connection: sqlite3.Connection) -> Sequence[DeliveryLost | None]:
            answers = self.messages.settle(connection, settlements)
            self.unmark_in(
                connection,
                [one for one, lost in zip(settlements, answers, strict=True) if one.mark and not lost],
            )
            return answers

        answers = await self.link.write(settle, lambda: changed)
        self.ring(changed)
        return answers
