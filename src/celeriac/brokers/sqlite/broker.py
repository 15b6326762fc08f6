"""A broker in one SQLite file, shared by any number of processes of one machine.

Rules: publishes and settlements of concurrent callers share transactions; nothing here waits for the disk in the
event loop; whoever makes a message ready wakes those who wait for its queue, in this process and in the others.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sqlalchemy import Connection

from celeriac.broker import DeadLetter, DeadLetters, Delivery, Subscription
from celeriac.brokers.sqlite.messages import (
    METADATA,
    NewMessage,
    Settlement,
    SqliteMessages,
    TakenMessage,
    Verb,
)
from celeriac.clock import Clock, SystemClock
from celeriac.coalesce import Coalescer
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.sqlite_link import SqliteLink
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import mark_redelivered, pack, unpack
from celeriac.wire.names import HIGHEST_PRIORITY

T = TypeVar("T")

_BATCH = 1000
"""Calls that share one transaction."""

_BULK = 5000
"""Messages of ``publish_many`` that share a transaction: others must get their turn."""

_POLL = 1.0
"""Seconds between looks at the file for what was not poked: it makes up for a lost poke."""


class SqliteBroker:
    """Keeps messages in a SQLite file.

    :param path: the database file; made when missing.
    :param lease: seconds after which the messages of a process that died are given to others.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        lease: float = 30.0,
    ) -> None:
        self._desk = _Desk(path, clock, lease)
        self._subscriptions: set[_SqliteSubscription] = set()

    async def publish(self, envelope: Envelope, route: Route) -> None:
        await self._desk.publish(_new_message(envelope, route))

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        new = [_new_message(envelope, route) for envelope, route in messages]
        for start in range(0, len(new), _BULK):
            await self._desk.add(new[start : start + _BULK])

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[Subscription]:
        subscription = _SqliteSubscription(self._desk)
        self._subscriptions.add(subscription)
        try:
            for queue in queues:
                await subscription.add_queue(queue)
            yield subscription
        finally:
            await subscription.stop()
            self._subscriptions.discard(subscription)

    async def queues(self) -> list[str]:
        return await self._desk.link.read(self._desk.messages.queues)

    async def depth(self, queue: str) -> int:
        return await self._desk.revived(lambda connection: self._desk.messages.depth(connection, queue))

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        found = await self._desk.revived(
            lambda connection: self._desk.messages.peek(connection, queue, limit)
        )
        return [_read(message) for message in found]

    async def purge(self, queue: str) -> int:
        return await self._desk.revived(lambda connection: self._desk.messages.purge(connection, queue))

    @property
    def dead(self) -> DeadLetters:
        return _SqliteDeadLetters(self._desk)

    async def ping(self) -> str:
        known = await self.queues()
        return f"SQLite file {self._desk.link.path}, {len(known)} queues"

    async def close(self) -> None:
        """Stop the subscriptions, give back what is held, and close the file."""
        for subscription in list(self._subscriptions):
            await subscription.stop()
        await self._desk.close()


class _Desk:
    """What the parts of one broker share: the file, its messages, and the bell that says a queue has some."""

    def __init__(self, path: str, clock: Clock, lease: float) -> None:
        self.link = SqliteLink(path, METADATA, clock, away=BrokerUnavailable, refused=BrokerError)
        self.messages = SqliteMessages(clock, lease)
        self.clock = clock
        self.publish: Coalescer[NewMessage, None] = Coalescer(self.add, _BATCH)
        self.settle: Coalescer[Settlement, None] = Coalescer(self._settle, _BATCH)
        self._lease = lease
        self._known: set[str] = set()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._attending = False

    async def attend(self, event: asyncio.Event, queue: str) -> None:
        """Declare the queue; set the event whenever it may have got a message, from any process."""
        await self.link.write(lambda connection: self.messages.declare(connection, [queue]))
        self._known.add(queue)
        if not self._attending:
            self._attending = True
            await self.link.every(self._lease / 3, self.messages.renew)
            await self.link.listen(self.ring_all, _POLL)
        await self.link.hear([queue])
        self._waiting.setdefault(queue, set()).add(event)

    async def ignore(self, event: asyncio.Event, queues: Collection[str]) -> None:
        """Set the event for these queues no longer."""
        for queue in queues:
            self._waiting[queue].discard(event)
        unheard = [queue for queue in queues if not self._waiting[queue]]
        for queue in unheard:
            del self._waiting[queue]
        with suppress(BrokerError):  # a poke too many does no harm
            await self.link.ignore(unheard)

    async def add(self, messages: Sequence[NewMessage]) -> list[None]:
        queues = {message.queue for message in messages}
        await self.link.write(
            lambda connection: self._add(connection, messages, queues - self._known), lambda: queues
        )
        self._known |= queues
        self.ring(queues)
        return [None] * len(messages)

    async def take(self, queues: Sequence[str], limit: int) -> tuple[list[TakenMessage], float | None]:
        """Take messages; when there are none, say when to look again (seconds since the epoch)."""

        def job(connection: Connection) -> tuple[list[TakenMessage], float | None]:
            taken = self.messages.take(connection, queues, limit)
            return taken, None if taken else self.messages.next_revival(connection)

        return await self.revived(job)

    async def revived(self, job: Callable[[Connection], T]) -> T:
        """Run the job on queues that are up to date; wake who waits for those that got something by that."""
        changed: set[str] = set()

        def whole(connection: Connection) -> T:
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

    def ring(self, queues: Collection[str]) -> None:
        """Wake those in this process who wait for one of the queues."""
        for queue in queues:
            for event in self._waiting.get(queue, ()):
                event.set()

    def ring_all(self) -> None:
        self.ring(list(self._waiting))

    async def close(self) -> None:
        await self.publish.drain()
        await self.settle.drain()
        if self.link.is_open:
            with suppress(BrokerError):  # what is held comes back when its lease ends
                await self._release()
        await self.link.close()
        self._attending = False
        self._known.clear()

    async def _release(self) -> None:
        queues: set[str] = set()
        await self.link.write(
            lambda connection: queues.update(self.messages.release(connection)), lambda: queues
        )

    def _add(self, connection: Connection, messages: Sequence[NewMessage], unknown: Collection[str]) -> None:
        if unknown:
            self.messages.declare(connection, unknown)
        self.messages.add(connection, messages)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[DeliveryLost | None]:
        changed = {settlement.queue for settlement in settlements if settlement.verb in {"requeue", "park"}}
        answers = await self.link.write(
            lambda connection: self.messages.settle(connection, settlements), lambda: changed
        )
        self.ring(changed)
        return answers


class _SqliteReceipt:
    __slots__ = ("_desk", "_message", "_spent")

    def __init__(self, desk: _Desk, message: TakenMessage) -> None:
        self._desk = desk
        self._message = message
        self._spent = False

    async def ack(self) -> None:
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
            await self._desk.settle(Settlement(verb, message.id, message.owner, message.queue, detail))
        except BrokerError:
            self._spent = False
            raise


class _SqliteSubscription:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._queues: deque[str] = deque()
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._stopped = False

    async def take(self, limit: int) -> list[Delivery]:
        while not self._stopped:
            self._changed.clear()
            taken, look_again = await self._take(limit)
            if taken:
                return [_delivery(self._desk, message) for message in taken]
            await self._wait(look_again)
        return []

    async def stop(self) -> None:
        self._stopped = True
        self._changed.set()
        dropped = list(self._queues)
        self._queues.clear()
        await self._desk.ignore(self._changed, dropped)
        async with self._taking:  # what is being taken right now is returned by its take
            pass

    async def add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            await self._desk.attend(self._changed, queue)
            self._queues.append(queue)
            self._changed.set()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            await self._desk.ignore(self._changed, [queue])

    async def _take(self, limit: int) -> tuple[list[TakenMessage], float | None]:
        async with self._taking:
            if self._stopped:
                return [], None
            self._queues.rotate(-1)
            return await self._desk.take(list(self._queues), limit)

    async def _wait(self, until: float | None) -> None:
        if until is None:
            await self._changed.wait()
            return
        pause = max(0.001, until - self._desk.clock.now())
        alarm = asyncio.get_running_loop().call_later(pause, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            alarm.cancel()


class _SqliteDeadLetters:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    async def list(self, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        found = await self._desk.link.read(
            lambda connection: self._desk.messages.dead(connection, limit, offset)
        )
        return [
            DeadLetter(
                id=str(dead.id),
                envelope=unpack(dead.frame),
                queue=dead.queue,
                reason=dead.reason,
                died_at=dead.died_at,
            )
            for dead in found
        ]

    async def count(self) -> int:
        return await self._desk.link.read(self._desk.messages.count_dead)

    async def retry(self, ids: Sequence[str]) -> int:
        return await self._desk.retry_dead(_numbers(ids))

    async def delete(self, ids: Sequence[str]) -> int:
        numbers = _numbers(ids)
        return await self._desk.link.write(
            lambda connection: self._desk.messages.delete_dead(connection, numbers)
        )


def _new_message(envelope: Envelope, route: Route) -> NewMessage:
    tag = envelope.delivery_tag or str(uuid.uuid4())
    priority = min(max(envelope.priority, 0), HIGHEST_PRIORITY)
    return NewMessage(
        route.queue or route.routing_key, priority, pack(envelope, delivery_tag=tag, route=route)
    )


def _delivery(desk: _Desk, message: TakenMessage) -> Delivery:
    return Delivery(_read(message), message.queue, _SqliteReceipt(desk, message), message.redelivered)


def _read(message: TakenMessage) -> Envelope | Unreadable:
    if message.redelivered:
        return unpack(mark_redelivered(message.frame, message.deliveries or None))
    return unpack(message.frame)


def _numbers(ids: Sequence[str]) -> Sequence[int]:
    return [int(name) for name in ids if name.isdecimal()]
