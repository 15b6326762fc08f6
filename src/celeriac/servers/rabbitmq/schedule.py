"""Messages in the queues of delays, sent by celeriac or by Celery.

Rules: the list is read by looking into the queues, a level each, so it is for people, not for programs. RabbitMQ does
not tell when a message is due. A header of ours does, or Celery's ``eta``; where there is neither, the bits of the
routing key say how long it waits at the most.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from celeriac.clock import Clock
from celeriac.contracts.broker import Parked
from celeriac.errors import BrokerError, BrokerUnavailable, MalformedMessage
from celeriac.servers.rabbitmq.browsing import look_into
from celeriac.servers.rabbitmq.envelopes import DELAY_BITS, DUE_HEADER, is_moment, read
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.content import read_properties
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.topology import DELAY_LEVELS, Topology
from celeriac.wire.envelope import Unreadable

_MOST = 10_000
"""How many messages of one level are looked at."""

_BITS = 2 * DELAY_LEVELS


class AmqpSchedule:
    """The parked messages of one broker; see ``celeriac.contracts.broker.Schedule``."""

    def __init__(self, link: Link, topology: Topology, clock: Clock, *, lowest_first: bool) -> None:
        self._lowest_first = lowest_first
        self._link = link
        self._topology = topology
        self._clock = clock
        self._turn = asyncio.Lock()

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[Parked]:
        found: builtins.list[Parked] = []
        async with self._turn:
            for level in await self._levels():
                with self._link.translated(BrokerUnavailable, BrokerError):
                    async with look_into(self._link, level, _MOST) as look:
                        found += [self._describe(message) for message in look.messages]
        found.sort(key=lambda parked: parked.due)
        return found[offset : offset + limit]

    async def count(self) -> int:
        with self._link.translated(BrokerUnavailable, BrokerError):
            return sum(await self._counts())

    async def delete(self, ids: Sequence[str]) -> int:
        wanted, deleted = set(ids), 0
        async with self._turn:
            for level in await self._levels() if wanted else []:
                with self._link.translated(BrokerUnavailable, BrokerError):
                    async with look_into(self._link, level, _MOST) as look:
                        for message in look.messages:
                            if _id_of(message) in wanted:
                                look.remove(message)
                                deleted += 1
        return deleted

    async def horizon(self) -> float:
        with self._link.translated(BrokerUnavailable, BrokerError):
            soon, *levels = await self._counts()
        # What is in the queue of one level has at most two of its delays to go.
        longest = max((2.0 ** (level + 1) for level, count in enumerate(levels) if count), default=0.0)
        return max(longest, 1.0 if soon else 0.0)

    async def _levels(self) -> builtins.list[str]:
        with self._link.translated(BrokerUnavailable, BrokerError):
            counts = await self._counts()
        return [name for name, count in zip(self._topology.delaying, counts, strict=True) if count]

    async def _counts(self) -> builtins.list[int]:
        return await self._topology.count_delayed()

    def _describe(self, message: Inbound) -> Parked:
        envelope, _ = read(message, lowest_first=self._lowest_first)
        bits, queue = message.routing_key[:_BITS], message.routing_key[_BITS:]
        due = _due_of(message)
        if due is None:
            due = self._clock.now() + (int(bits.replace(".", ""), 2) if DELAY_BITS.match(bits) else 0)
        return Parked(id=_id_of(message), envelope=envelope, queue=queue, due=due)


def _id_of(message: Inbound) -> str:
    envelope, _ = read(message)
    known = None if isinstance(envelope, Unreadable) else envelope.correlation_id
    return known or hashlib.sha256(repr(_due_of(message)).encode() + message.body).hexdigest()


def _due_of(message: Inbound) -> float | None:
    try:
        headers = read_properties(message.header).headers or {}
    except MalformedMessage:
        return None
    due = headers.get(DUE_HEADER)
    return due if is_moment(due) else _time(headers.get("eta"))


def _time(eta: object) -> float | None:
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
