"""What every celeriac process on one RabbitMQ should know: what was revoked, who still works on what, what comes back.

Rules: entries are published to a fanout exchange of ours. A stream behind it keeps them for a week, for whoever comes
later; each channel that takes messages has an exclusive queue behind it too, so that a revocation which was stored
before a message was published arrives before that message: RabbitMQ confirms what all queues have handed on, and a
channel keeps order. An entry has a number, and the revision is the sum of the numbers: who knows the same has the same.
Source: RabbitMQ, "Streams", "Publisher Confirms".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.broker import Revoked
from celeriac.clock import Clock
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound

_log = logging.getLogger("celeriac.broker.amqp")

LEDGER_CONSUMER = "celeriac-ledger"
"""Tag of the consumer of a channel's own queue."""

_STREAM: Mapping[str, Any] = {
    "x-queue-type": "stream",
    "x-max-age": "7D",
    "x-max-length-bytes": 100_000_000,
    "x-stream-max-segment-size-bytes": 5_000_000,
}
_HISTORY = 1000
_NUMBERS = 2**62
_MOST = 100_000
_MOST_STEPS = 10_000
"""By how much a tally may be taken back at once. Forward it goes one by one."""

_LONGEST_HOLD = 300.0
"""Seconds for which one entry may say that something is worked on, in spite of clocks that differ."""


class _Entry(msgspec.Struct, omit_defaults=True):
    number: int
    mark: str | None = None
    queue: str | None = None
    revoke: list[str] = []
    roots: list[str] = []
    terminate: bool = False
    until: float = 0.0
    counted: list[str] = []
    step: int = 1
    held: list[str] = []
    ended: list[str] = []


class _Term(msgspec.Struct):
    until: float
    terminate: bool


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(_Entry).decode


class Ledger:
    """The copy of one process.

    :ivar queues: the queues that somebody declared.
    :ivar revision: changes with every revocation.
    """

    def __init__(self, link: Link, name: str, clock: Clock) -> None:
        self._link = link
        self._name = name
        self._clock = clock
        self.queues: set[str] = set()
        self.revision = 0
        self._numbers: set[int] = set()
        self._ids: dict[str, _Term] = {}
        self._roots: dict[str, _Term] = {}
        self._tallies: dict[str, dict[int, int]] = {}
        self._held: dict[str, float] = {}
        self._ended: dict[str, None] = {}
        self._channel: Channel | None = None
        self._declared: object = None
        self._turn = asyncio.Lock()
        self._complained = False
        self._left_out = False
        self._has_stream = False

    async def follow(self) -> None:
        """Have the copy, as of this call and from now on. Raises ``AmqpError``."""
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
        """Have the copy, unless this user has not the right to; that is said once."""
        try:
            await self.follow()
        except Refused as error:
            self._complain(f"what is revoked cannot be known here: {error}")
            return False
        return True

    async def settle(self) -> None:
        """Have the copy as of this call."""
        await self.follow()
        assert self._channel is not None
        async with self._link.deadline():
            # The answer comes after every entry that was confirmed to its writer before.
            await self._channel.call(methods.limit_unsettled(0))

    async def attach(self, channel: Channel) -> None:
        """Have new entries come on this channel, from consumer ``LEDGER_CONSUMER``; ``take`` is for them."""
        await self._declare()
        async with self._link.deadline():
            queue = (await channel.call(methods.declare_own_queue())).queue
            await channel.call(methods.bind_queue(queue, self._name, ""))
            await channel.call(methods.consume(queue, LEDGER_CONSUMER, no_ack=True))

    def take(self, message: Inbound) -> None:
        """Learn what an entry says."""
        try:
            entry = _read(message.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._leave_out(f"cannot be read: {error}")
            return
        if not (0 < entry.number < _NUMBERS and -_MOST_STEPS <= entry.step <= 1):
            self._leave_out("is none that celeriac writes")
            return
        if entry.number in self._numbers:
            return
        if entry.queue is not None and len(self.queues) < _MOST:
            self.queues.add(entry.queue)
        if entry.counted:
            self._count(entry)
        if entry.held or entry.ended:
            self._note_work(entry)
        if entry.revoke or entry.roots:
            self._numbers.add(entry.number)
            self.revision = (self.revision + entry.number) % _NUMBERS
            for table, names in ((self._ids, entry.revoke), (self._roots, entry.roots)):
                self._revoke(table, names, entry)

    def _leave_out(self, why: str) -> None:
        """Say that an entry is left out, once: whoever writes one may write many."""
        level = logging.DEBUG if self._left_out else logging.WARNING
        self._left_out = True
        _log.log(level, "an entry of %s is left out, as further ones may be: it %s", self._name, why)

    async def note_queue(self, queue: str) -> None:
        """Let everybody know of a queue, unless the copy has it. Never raises: it is a courtesy."""
        if queue in self.queues or queue.startswith(self._name.rpartition(".")[0]):
            return
        self.queues.add(queue)
        try:
            await self._append(_Entry(_number(), queue=queue))
        except AmqpError as error:
            _log.debug("queue %s could not be noted: %s", queue, error)

    async def count(self, keys: Sequence[str], step: int) -> None:
        """Let everybody know that the tallies of these went on by a step. Raises ``AmqpError``."""
        entry = _Entry(_number(), counted=list(keys), step=step)
        await self._append(entry)
        self._count(entry)

    def tally(self, key: str) -> int:
        """Return the sum of the steps of one key."""
        return sum(self._tallies.get(key, {}).values())

    def _count(self, entry: _Entry) -> None:
        # The same entry comes on several channels.
        for key in entry.counted:
            self._tallies.setdefault(key, {})[entry.number] = entry.step
        _shorten(self._tallies)

    async def hold(self, tags: Sequence[str], until: float) -> None:
        """Let everybody know that these publications are worked on, until then (seconds since the epoch).

        Raises ``AmqpError``.
        """
        entry = _Entry(_number(), held=list(tags), until=until)
        await self._append(entry)
        self._note_work(entry)

    async def end(self, tags: Sequence[str]) -> None:
        """Let everybody know that these publications were dealt with. Raises ``AmqpError``."""
        entry = _Entry(_number(), ended=list(tags))
        await self._append(entry)
        self._note_work(entry)

    def held_until(self, tag: str) -> float | None:
        """Return until when somebody works on a publication that RabbitMQ took back; ``None`` if nobody said so."""
        return self._held.get(tag)

    def has_ended(self, tag: str) -> bool:
        """Whether somebody dealt with a publication after RabbitMQ took it back."""
        return tag in self._ended

    def note_ended(self, tags: Iterable[str]) -> None:
        """Know here that these publications were dealt with, whether or not the others can be told just now."""
        self._ended |= dict.fromkeys(tags)
        _shorten(self._ended)

    def _note_work(self, entry: _Entry) -> None:
        latest = self._clock.now() + _LONGEST_HOLD
        for tag in entry.held:
            self._held.pop(tag, None)
            self._held[tag] = min(entry.until, latest)
        _shorten(self._held)
        self.note_ended(entry.ended)

    async def revoke(self, ids: Sequence[str], roots: Sequence[str], terminate: bool, until: float) -> None:
        """Let everybody know of a revocation. Raises ``AmqpError``."""
        await self._append(
            _Entry(_number(), revoke=list(ids), roots=list(roots), terminate=terminate, until=until)
        )

    def revoked(self) -> Revoked:
        """Return what is revoked now."""
        now = self._clock.now()
        for table in (self._ids, self._roots):
            for name in [name for name, term in table.items() if term.until <= now]:
                del table[name]
        terminate = [name for table in (self._ids, self._roots) for name in table if table[name].terminate]
        return Revoked(
            self.revision, frozenset(self._ids), frozenset(self._roots), terminate=frozenset(terminate)
        )

    def _revoke(self, table: dict[str, _Term], names: Sequence[str], entry: _Entry) -> None:
        now = self._clock.now()
        for name in names:
            term = table.get(name)
            if term is None or term.until <= now:
                table[name] = _Term(entry.until, entry.terminate)
            else:
                term.until = max(term.until, entry.until)
                term.terminate |= entry.terminate

    async def _declare(self) -> None:
        connection = await self._link.connection()
        if self._declared is connection:
            return
        never = self._link.target.declare == "never"
        async with self._link.passing_channel() as channel:
            look, make = methods.look_for_exchange(self._name), methods.declare_exchange(self._name, "fanout")
            await channel.call(look if never else make)
        self._has_stream = True
        try:
            async with self._link.passing_channel() as channel:
                if never:
                    await channel.call(methods.look_for_queue(self._name))
                else:
                    await channel.call(methods.declare_queue(self._name, _STREAM))
                    await channel.call(methods.bind_queue(self._name, self._name, ""))
        except Refused as error:
            self._has_stream = False
            self._complain(
                f"no stream can be had, so a worker knows only what is revoked while it runs: {error}"
            )
        self._declared = connection

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
                channel.send(frames.ack(channel.number, message.tag))
                self.take(message)
                if mark.encode() in message.body:
                    seen.set()

            channel.on_message = take
            await channel.call(methods.limit_unsettled(_HISTORY))
            reading = methods.consume(self._name, "history", arguments={"x-stream-offset": "first"})
            await channel.call(reading)
            await self._append(_Entry(_number(), mark=mark))
            await seen.wait()

    async def _append(self, entry: _Entry) -> None:
        await self._declare()
        body = _write(entry)
        header = write_properties(Properties(content_type="application/json", delivery_mode=2), len(body))
        publisher = await self._link.publisher()
        await publisher.publish(self._name, "", header, body, mandatory=False)


def _shorten(known: dict[str, Any]) -> None:
    """Drop what was learnt first of what is too much."""
    while len(known) > _MOST:
        del known[next(iter(known))]


def _number() -> int:
    return secrets.randbelow(_NUMBERS - 1) + 1
