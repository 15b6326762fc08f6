"""Messages that were set aside, in durable queues of ours: the dead letters, and those of failed tasks.

Rules: such a message is as it was, with four more headers and without an expiry. A list is read by looking into its
queue, so it is for people, not for programs: of two that look at the same time each sees a part.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.set_aside import DeadLetter, Failed
from celeriac.errors import BrokerError, BrokerUnavailable, EncodeError, MalformedMessage
from celeriac.servers.rabbitmq.browsing import look_into
from celeriac.servers.rabbitmq.dispatcher import Dispatcher
from celeriac.servers.rabbitmq.envelopes import is_moment, moved, new_id, read, shortened, to_properties
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.content import Properties, read_properties
from celeriac.servers.rabbitmq.protocol.errors import Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.protocol.publishing import NO_ROUTE
from celeriac.servers.rabbitmq.topology import Topology
from celeriac.wire.envelope import Envelope, Route, Unreadable

_ID, _QUEUE, _REASON, _DIED_AT = (
    "x-celeriac-dead-id",
    "x-celeriac-dead-queue",
    "x-celeriac-dead-reason",
    "x-celeriac-died-at",
)
_OURS = frozenset({_ID, _QUEUE, _REASON, _DIED_AT})
_LONGEST_REASON = 10_000
_MOST = 100_000
"""How many dead letters are searched for some ids."""


class Graveyard:
    """Puts messages into a queue of those that were set aside."""

    def __init__(self, dispatcher: Dispatcher, queue: str) -> None:
        self._dispatcher = dispatcher
        self.queue = queue

    async def add(self, message: Inbound, queue: str, reason: str, now: float, id: str | None = None) -> None:
        """Return when the message is there. Raises ``AmqpError``.

        :param id: names the entry; a new one is made without it.
        """
        letter = moved(message, _facts(id or str(uuid.uuid4()), queue, reason, now))
        await self._send(letter, message.body)

    async def put(
        self, envelope: Envelope, queue: str, failed: Failed, now: float, *, lowest_first: bool
    ) -> None:
        """Do as ``add`` with a message that was acknowledged before."""
        letter = to_properties(msgspec.structs.replace(envelope, copy=None), lowest_first=lowest_first)
        letter.headers = {**(letter.headers or {}), **_facts(failed.id, queue, failed.reason, now)}
        await self._send(letter, envelope.body)

    async def _send(self, letter: Properties, body: bytes) -> None:
        try:
            try:
                await self._dispatcher.send(letter, body, Route(self.queue, queue=self.queue))
            except EncodeError:
                # The headers filled their frame, and ours are more than RabbitMQ takes in one.
                shorter = shortened(letter, _OURS)
                await self._dispatcher.send(shorter, body, Route(self.queue, queue=self.queue))
        except Refused as error:
            if error.code != NO_ROUTE:
                raise
            raise Refused(
                f"there is no queue {self.queue!r} for messages that are set aside; declare it", NO_ROUTE
            ) from error


class AmqpDeadLetters:
    """The dead-letter list of one broker; see ``celeriac.contracts.set_aside.DeadLetters``."""

    def __init__(
        self, link: Link, topology: Topology, dispatcher: Dispatcher, queue: str, *, lowest_first: bool
    ) -> None:
        self._lowest_first = lowest_first
        self._link = link
        self._topology = topology
        self._dispatcher = dispatcher
        self.queue = queue
        self._turn = asyncio.Lock()

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        if limit <= 0:
            return []
        async with self._turn:
            with self._link.translated(BrokerUnavailable, BrokerError):
                async with look_into(self._link, self.queue, offset + limit) as look:
                    return [self._describe(message) for message in look.messages[offset:]]

    async def count(self) -> int:
        with self._link.translated(BrokerUnavailable, BrokerError):
            return await self._topology.count(self.queue) or 0

    async def retry(self, ids: Sequence[str]) -> int:
        return await self._take_out(ids, again=True)

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._take_out(ids, again=False)

    async def put(
        self, graveyard: Graveyard, envelope: Envelope, queue: str, failed: Failed, now: float
    ) -> None:
        """Add a message that was acknowledged before."""
        with self._link.translated(BrokerUnavailable, BrokerError), contextlib.suppress(Refused):
            # As of a message that its worker holds: without the list it is only harder to run the task again.
            await graveyard.put(envelope, queue, failed, now, lowest_first=self._lowest_first)

    async def _take_out(self, ids: Sequence[str], *, again: bool) -> int:
        wanted = set(ids)
        if not wanted:
            return 0
        count = 0
        async with self._turn:
            with self._link.translated(BrokerUnavailable, BrokerError):
                async with look_into(self._link, self.queue, _MOST) as look:
                    for message in look.messages:
                        if _letter(message)[_ID] in wanted:
                            if again:
                                await self._revive(message)
                            look.remove(message)
                            count += 1
        return count

    def _describe(self, message: Inbound) -> DeadLetter:
        envelope, _ = read(message, lowest_first=self._lowest_first)
        return _describe(message, envelope)

    async def _revive(self, message: Inbound) -> None:
        letter = _letter(message)
        queue = letter[_QUEUE]
        if not isinstance(queue, str) or not queue:
            raise BrokerError(
                f"dead letter {letter[_ID]!r} names no queue that it could go back to; delete it"
            )
        properties = moved(message)
        headers = properties.headers or {}
        properties.headers = {name: value for name, value in headers.items() if name not in _OURS}
        properties.message_id = (
            new_id()
        )  # a new publication: notices and copies of the old one must not stop it
        await self._dispatcher.send(properties, message.body, Route(queue, queue=queue))


class AmqpFailed:
    """The failed list of one broker; see ``celeriac.contracts.set_aside.FailedTasks``."""

    def __init__(self, letters: AmqpDeadLetters, graveyard: Graveyard, clock: Clock) -> None:
        self._letters = letters
        self._graveyard = graveyard
        self._clock = clock

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        return await self._letters.list(limit, offset)

    async def count(self) -> int:
        return await self._letters.count()

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        wanted = set(ids)
        # The later of two comes later, and takes the place of the earlier.
        found = {letter.id: letter for letter in await self._letters.list(_MOST) if letter.id in wanted}
        return tuple(found.values())

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        await self._letters.put(self._graveyard, envelope, queue, failed, self._clock.now())

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._letters.delete(ids)


def _facts(id: str, queue: str, reason: str, now: float) -> dict[str, Any]:
    """Return the headers of a message that is set aside."""
    reason = reason.encode(errors="backslashreplace").decode()[:_LONGEST_REASON]
    return {_ID: id, _QUEUE: queue, _REASON: reason, _DIED_AT: now}


def _letter(message: Inbound) -> dict[str, Any]:
    try:
        headers = read_properties(message.header).headers or {}
    except MalformedMessage:
        headers = {}
    return {name: headers.get(name) for name in _OURS}


def _describe(message: Inbound, envelope: Envelope | Unreadable) -> DeadLetter:
    letter = _letter(message)
    queue = str(letter[_QUEUE] or "")
    if not isinstance(envelope, Unreadable):
        headers = {name: value for name, value in envelope.headers.items() if name not in _OURS}
        envelope = msgspec.structs.replace(envelope, headers=headers, exchange="", routing_key=queue)
    died_at = letter[_DIED_AT]
    return DeadLetter(
        id=str(letter[_ID] or ""),
        envelope=envelope,
        queue=queue,
        reason=str(letter[_REASON] or ""),
        died_at=died_at if is_moment(died_at) else 0.0,
    )
