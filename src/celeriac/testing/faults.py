"""Faults on purpose, at named points of a real broker and result store.

Rules: the broker or store stays the real one. A fault happens before its method is called, or after its effect has
landed. Points have the names of the contracts' methods. The faults of a point happen in the order in which they were
set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import (
    Backend,
    ChordStore,
    Claim,
    EncodedPart,
    EncodedResult,
    Replies,
    Standing,
)
from celeriac.contracts.board import Board
from celeriac.contracts.broker import Beat, Broker, Delivery, Schedule, Subscription
from celeriac.contracts.fanout import Fanout
from celeriac.contracts.server import OnServer, Settlements, Settling
from celeriac.contracts.set_aside import DeadLetters, FailedTasks
from celeriac.contracts.transactions import Transactions
from celeriac.errors import Finding
from celeriac.testing.fault_script import BROKER_POINTS, POINTS, Faults, Pause, Point, When
from celeriac.testing.faulty_settling import faulty_receipt, faulty_settlements
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.result import ResultRecord

__all__ = ["BROKER_POINTS", "POINTS", "Faults", "FaultyBackend", "FaultyBroker", "Pause", "Point", "When"]


class FaultyBroker:
    """A real broker with faults at ``subscribe``, ``take``, ``publish``, ``ack``, ``requeue``, ``park`` and ``bury``.

    ``publish`` is the point of ``publish_many`` and ``publish_once`` too.
    """

    def __init__(self, broker: Broker, faults: Faults) -> None:
        self._broker = broker
        self._faults = faults

    async def publish(self, envelope: Envelope, route: Route) -> None:
        await self._faults.around("publish", lambda: self._broker.publish(envelope, route))

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        await self._faults.around("publish", lambda: self._broker.publish_many(messages))

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        return await self._faults.around("publish", lambda: self._broker.publish_once(key, messages))

    async def forget_once(self, key: str) -> None:
        await self._broker.forget_once(key)

    @property
    def may_repeat(self) -> bool:
        return self._broker.may_repeat

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[Subscription]:
        await self._faults.at("subscribe", "before")
        async with self._broker.subscribe(queues) as subscription:
            await self._faults.at("subscribe", "after")
            yield FaultySubscription(subscription, self._faults)

    async def queues(self) -> list[str]:
        return await self._broker.queues()

    async def depth(self, queue: str) -> int:
        return await self._broker.depth(queue)

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        return await self._broker.peek(queue, limit)

    async def purge(self, queue: str) -> int:
        return await self._broker.purge(queue)

    @property
    def dead(self) -> DeadLetters:
        return self._broker.dead

    @property
    def failed(self) -> FailedTasks:
        """The broker's own."""
        return self._broker.failed

    @property
    def schedule(self) -> Schedule:
        return self._broker.schedule

    @property
    def fanout(self) -> Fanout | None:
        """That of the broker itself: nothing goes wrong there."""
        return self._broker.fanout

    @property
    def transactions(self) -> Transactions | None:
        """The broker's own: what it writes, the caller's connection carries."""
        return self._broker.transactions

    @property
    def beat(self) -> Beat | None:
        """That of the broker itself."""
        return self._broker.beat

    @property
    def board(self) -> Board:
        return self._broker.board

    @property
    def connections(self) -> object | None:
        """Those of the real one."""
        return self._broker.connections if isinstance(self._broker, OnServer) else None

    def settlements(self, results: Backend) -> Settlements | None:
        """Return the real ones with faults at ``land``."""
        real = results.real if isinstance(results, FaultyBackend) else results
        made = self._broker.settlements(real) if isinstance(self._broker, Settling) else None
        return faulty_settlements(made, self._faults) if made is not None else None

    async def ping(self) -> str:
        return await self._broker.ping()

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        return await self._broker.examine(queues)

    async def close(self) -> None:
        await self._broker.close()


class FaultySubscription:
    """A real subscription with faults at ``take``; its receipts are faulty too."""

    def __init__(self, subscription: Subscription, faults: Faults) -> None:
        self._subscription = subscription
        self._faults = faults

    @property
    def prefetch(self) -> int:
        return self._subscription.prefetch

    @prefetch.setter
    def prefetch(self, most: int) -> None:
        self._subscription.prefetch = most

    @property
    def backlog(self) -> int:
        return self._subscription.backlog

    @backlog.setter
    def backlog(self, most: int) -> None:
        self._subscription.backlog = most

    @property
    def idle(self) -> bool:
        return self._subscription.idle

    @idle.setter
    def idle(self, idle: bool) -> None:
        self._subscription.idle = idle

    async def take(self, limit: int) -> list[Delivery]:
        return await self._faults.around("take", lambda: self._take(limit))

    def held(self) -> Sequence[Delivery]:
        return self._subscription.held()

    async def let_go(self) -> None:
        await self._subscription.let_go()

    @property
    def revision(self) -> int:
        return self._subscription.revision

    @property
    def ahead(self) -> float:
        return self._subscription.ahead

    async def stop(self) -> None:
        await self._subscription.stop()

    async def add_queue(self, queue: str) -> None:
        await self._subscription.add_queue(queue)

    async def drop_queue(self, queue: str) -> None:
        await self._subscription.drop_queue(queue)

    async def _take(self, limit: int) -> list[Delivery]:
        taken = await self._subscription.take(limit)
        return [
            msgspec.structs.replace(delivery, receipt=faulty_receipt(delivery.receipt, self._faults))
            for delivery in taken
        ]


class FaultyBackend:
    """A real result store with faults at ``store``, ``load``, ``follow`` and ``forget``; its chords are faulty too."""

    def __init__(self, backend: Backend, faults: Faults) -> None:
        self._backend = backend
        self._faults = faults

    @property
    def real(self) -> Backend:
        """The store behind the faults."""
        return self._backend

    def encode(self, record: ResultRecord) -> EncodedResult:
        return self._backend.encode(record)

    async def store(self, encoded: EncodedResult) -> None:
        await self._faults.around("store", lambda: self._backend.store(encoded))

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return await self._faults.around("load", lambda: self._backend.load(task_ids))

    def follow(self, task_ids: Collection[str]) -> AbstractAsyncContextManager[AsyncIterator[ResultRecord]]:
        return self._follow(task_ids)

    async def forget(self, task_ids: Sequence[str]) -> None:
        await self._faults.around("forget", lambda: self._backend.forget(task_ids))

    @property
    def replies(self) -> Replies | None:
        return self._backend.replies

    @property
    def board(self) -> Board | None:
        return self._backend.board

    @property
    def chords(self) -> ChordStore | None:
        chords = self._backend.chords
        return FaultyChordStore(chords, self._faults) if chords is not None else None

    async def ping(self) -> str:
        return await self._backend.ping()

    async def examine(self) -> Sequence[Finding]:
        return await self._backend.examine()

    async def close(self) -> None:
        await self._backend.close()

    @asynccontextmanager
    async def _follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        await self._faults.at("follow", "before")
        async with self._backend.follow(task_ids) as records:
            await self._faults.at("follow", "after")
            yield records


class FaultyChordStore:
    """A real chord store with faults at ``open``, ``extend``, ``count``, ``collect``, ``renew`` and ``finish``."""

    def __init__(self, chords: ChordStore, faults: Faults) -> None:
        self._chords = chords
        self._faults = faults

    def encode(self, part: Part) -> EncodedPart:
        return self._chords.encode(part)

    async def open(self, openings: Sequence[Opening]) -> None:
        await self._faults.around("open", lambda: self._chords.open(openings))

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        await self._faults.around("extend", lambda: self._chords.extend(chord_id, task_ids))

    async def count(self, encoded: EncodedPart) -> Standing:
        return await self._faults.around("count", lambda: self._chords.count(encoded))

    async def collect(self, claim: Claim) -> list[Any]:
        return await self._faults.around("collect", lambda: self._chords.collect(claim))

    async def renew(self, claim: Claim) -> bool:
        return await self._faults.around("renew", lambda: self._chords.renew(claim))

    async def finish(self, claim: Claim) -> None:
        await self._faults.around("finish", lambda: self._chords.finish(claim))
