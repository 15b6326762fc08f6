"""A log that every celeriac process on one RabbitMQ shares; its readers decide what an entry means.

Rules: entries are published to a fanout exchange of ours. A stream behind it keeps them for a week, for processes that
start later. Each channel that takes messages has an exclusive queue behind it too, so that a revocation which was
stored before a message was published arrives before that message: RabbitMQ confirms what all queues have handed on, and
a channel keeps order. An entry may come more than once, so readers must not count it twice.
Source: RabbitMQ, "Streams", "Publisher Confirms".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, QueueAway, Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound

_log = logging.getLogger("celeriac.broker.amqp")

LEDGER_CONSUMER = "celeriac-ledger"
"""Name of the consumer of a channel's own queue."""

NUMBERS = 2**62
"""Numbers of entries are below this."""

MOST = 100_000
"""Names that a reader keeps of what it read, at the most."""

_STREAM: Mapping[str, Any] = {
    "x-queue-type": "stream",
    "x-max-age": "7D",
    "x-max-length-bytes": 100_000_000,
    "x-stream-max-segment-size-bytes": 5_000_000,
}
_HISTORY = 1000
"""Entries of the stream that are on their way at once."""

_AWAY_FOR = 30.0
"""Seconds for which the stream may be away, as it is while its node starts, before processes go on without it.

RabbitMQ loses a stream that was just made when its node is killed: it says so for good, until a person deletes it.
"""

_MOST_STEPS = 10_000
"""By how much a count may be taken back at once. Forward it goes one by one."""


class Change(msgspec.Struct, array_like=True):
    """A change of a board's sets of one name: members to add, or to remove.

    :param at: seconds since the epoch, by the clock of the process that writes it.
    """

    name: str
    sets: dict[str, list[str]]
    at: float


class Entry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One entry of the log. A field that is not needed is empty.

    :param number: random; differs from that of every other entry.
    :param mark: says that the history is read up to here.
    :param queue: was declared.
    :param change: of sets; its members are kept until ``until``, or removed where that is 0.
    :param until: seconds since the epoch.
    :param counted: messages whose count of deliveries changes by ``step``.
    :param held: publications that are worked on, until ``until``.
    :param ended: publications on which the work has ended.
    """

    number: int = msgspec.field(default_factory=lambda: secrets.randbelow(NUMBERS - 1) + 1)
    mark: str | None = None
    queue: str | None = None
    change: Change | None = None
    until: float = 0.0
    counted: list[str] = []
    step: int = 1
    held: list[str] = []
    ended: list[str] = []


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Entry).decode


class Ledger:
    """The log, as one process reads and writes it.

    :ivar readers: each is given every entry, in the order of the log, and some entries again.
    """

    def __init__(self, link: Link, name: str, *, away_for: float = _AWAY_FOR) -> None:
        self._link = link
        self._away_for = away_for
        self.name = name
        self.readers: list[Callable[[Entry], None]] = []
        self._channel: Channel | None = None
        self._declared: object = None
        self._turn = asyncio.Lock()
        self._complained = False
        self._left_out = False
        self._has_stream = False
        self._away_since: float | None = None

    async def append(self, entry: Entry) -> None:
        """Store an entry for every process; the readers here have it on return. Raises ``AmqpError``."""
        await self._declare()
        body = _write(entry)
        header = write_properties(Properties(content_type="application/json", delivery_mode=2), len(body))
        publisher = await self._link.publisher()
        await publisher.publish(self.name, "", header, body, mandatory=False)
        self._hand_over(entry)

    async def follow(self) -> None:
        """Have the entries, as of this call and from now on. Raises ``AmqpError``."""
        if self._channel is not None and self._channel.is_open:
            return
        async with self._turn:
            if self._channel is None or not self._channel.is_open:
                async with self._link.lasting_channel() as channel:
                    channel.on_message = self.take
                    await self.attach(channel)
                    await self._read_history()
                self._channel = channel

    async def can_follow(self) -> bool:
        """Have the entries, unless this user has not the right to; that is logged once."""
        try:
            await self.follow()
        except Refused as error:
            self._complain(f"what is revoked cannot be known here: {error}")
            return False
        return True

    async def settle(self) -> None:
        """Have every entry that was confirmed to its writer before this call. Raises ``AmqpError``."""
        await self.follow()
        assert self._channel is not None
        async with self._link.deadline():
            # The answer comes after those entries.
            await self._channel.call(methods.limit_unsettled(0))

    async def attach(self, channel: Channel) -> None:
        """Have new entries come on this channel, from consumer ``LEDGER_CONSUMER``; ``take`` is for them."""
        await self._declare()
        async with self._link.deadline():
            queue = (await channel.call(methods.declare_own_queue())).queue
            await channel.call(methods.bind_queue(queue, self.name, ""))
            await channel.call(methods.consume(queue, LEDGER_CONSUMER, no_ack=True))

    def take(self, message: Inbound) -> None:
        """Hand an entry to the readers, unless it is none that celeriac writes."""
        try:
            entry = _read(message.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._leave_out(f"cannot be read: {error}")
            return
        if 0 < entry.number < NUMBERS and -_MOST_STEPS <= entry.step <= 1:
            self._hand_over(entry)
        else:
            self._leave_out("is none that celeriac writes")

    def _hand_over(self, entry: Entry) -> None:
        for read in self.readers:
            read(entry)

    def _leave_out(self, why: str) -> None:
        """Log that an entry is left out, once: a process that writes one may write many."""
        level = logging.DEBUG if self._left_out else logging.WARNING
        self._left_out = True
        _log.log(level, "an entry of %s is left out, as further ones may be: it %s", self.name, why)

    async def _declare(self) -> None:
        connection = await self._link.connection()
        if self._declared is connection:
            return
        never = self._link.target.declare == "never"
        async with self._link.passing_channel() as channel:
            look, make = methods.look_for_exchange(self.name), methods.declare_exchange(self.name, "fanout")
            await channel.call(look if never else make)
        self._has_stream = False
        try:
            async with self._link.passing_channel() as channel:
                if never:
                    await channel.call(methods.look_for_queue(self.name))
                else:
                    await channel.call(methods.declare_queue(self.name, _STREAM))
                    await channel.call(methods.bind_queue(self.name, self.name, ""))
        except Refused as error:
            self._do_without_stream(error)
        except QueueAway as error:
            if not self._is_away_for_long():
                raise
            self._do_without_stream(error)
        else:
            self._has_stream, self._away_since = True, None
        self._declared = connection

    def _is_away_for_long(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since >= self._away_for

    def _do_without_stream(self, error: AmqpError) -> None:
        self._complain(f"no stream can be had, so a worker knows only what is revoked while it runs: {error}")

    def _complain(self, text: str) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("%s: %s", self._link.target, text)

    async def _read_history(self) -> None:
        """Read the stream up to a mark that is written now."""
        if not self._has_stream:
            return
        mark, seen = str(uuid.uuid4()), asyncio.Event()
        async with self._link.passing_channel() as channel:

            def take(message: Inbound) -> None:
                if channel.is_open:  # else whoever reads has given up, as where the server hangs
                    channel.send(frames.ack(channel.number, message.tag))
                self.take(message)
                if mark.encode() in message.body:
                    seen.set()

            channel.on_message = take
            await channel.call(methods.limit_unsettled(_HISTORY))
            reading = methods.consume(self.name, "history", arguments={"x-stream-offset": "first"})
            await channel.call(reading)
            await self.append(Entry(mark=mark))
            await seen.wait()


def drop_oldest(known: dict[Any, Any]) -> None:
    """Drop the oldest names beyond ``MOST``."""
    while len(known) > MOST:
        del known[next(iter(known))]
