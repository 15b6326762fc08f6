"""Fanout by tables of any database: one of the listeners, and those of the messages.

Rules: without listeners no message is written. A listener is kept until it leaves or its lease ends, and a message
until it expires. A listener that is woken reads the messages since its last look.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import msgspec

from celeriac.clock import Clock, set_within
from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.inbox import Inbox, answers_to, hears, leads
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack, unpack

_log = logging.getLogger("celeriac.broker")

LEASE = 30.0
"""Seconds after its last renewal until a listener no longer counts."""

KEEP = 60.0
"""Seconds that a message is kept for its listeners."""

_BETWEEN_LOOKS = 0.02
"""Seconds between looks: a busy exchange wakes its listeners for each message."""


class Listener(msgspec.Struct, frozen=True):
    """A listener of one process, and what it is bound to.

    :param asks: it waits for the answers to a question, at the one address that it is bound to.
    """

    name: str
    bindings: tuple[Binding, ...]
    asks: bool = False

    @property
    def exchanges(self) -> list[str]:
        """The names of the exchanges, once each."""
        return sorted({binding.exchange.name for binding in self.bindings})

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Exchange and key of each binding, once each, in one order for all."""
        return sorted({(binding.exchange.name, binding.key) for binding in self.bindings})

    def hears(self, exchange: str, key: str) -> bool:
        """Whether it gets what is published there under this key."""
        return any(hears(binding, exchange, key) for binding in self.bindings)


class Said(msgspec.Struct, frozen=True):
    """A message as it is kept; ``number`` is higher than that of any before it."""

    number: int
    exchange: str
    key: str
    frame: bytes


class Broadcasts(Protocol):
    """The tables of one database. Every method raises ``BrokerUnavailable`` and ``BrokerError`` as a broker does."""

    @property
    def clock(self) -> Clock: ...

    @property
    def pulse(self) -> float:
        """Seconds after which a listener looks although nothing woke it."""
        ...

    async def say(self, exchange: Exchange, key: str, keep: float, frame: bytes) -> int:
        """Write the message for the listeners bound to it, and wake them; return how many there are."""
        ...

    async def answer(self, reply_to: ReplyTo, keep: float, frame: bytes) -> bool:
        """Write the message for the listener at this address, and wake it; return whether there is one."""
        ...

    async def hear(self, listener: Listener, rung: asyncio.Event) -> None:
        """Set the event whenever there may be something for the listener."""
        ...

    async def ignore(self, listener: Listener, rung: asyncio.Event) -> None:
        """Set it no longer."""
        ...

    async def bind(self, listener: Listener) -> int:
        """Keep the listener for a further ``LEASE``; return the number of the last message."""
        ...

    async def unbind(self, listener: Listener) -> None:
        """Forget the listener."""
        ...

    def is_deserted(self, exchange: Exchange, key: str) -> bool:
        """See ``celeriac.contracts.fanout.KnowsListeners``."""
        ...

    async def news(self, listener: Listener, last: int) -> Sequence[Said]:
        """Return what was said after this number on the listener's exchanges, in order, or answered to it."""
        ...


class RowFanout:
    """Listeners of one database; see ``celeriac.contracts.fanout.Fanout``."""

    def __init__(self, broadcasts: Broadcasts) -> None:
        self._broadcasts = broadcasts
        self._listening: set[_Listening] = set()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int:
        return await self._broadcasts.say(exchange, key, KEEP, _frame(envelope, exchange.name, key))

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        async with self._open(Listener(str(uuid.uuid4()), tuple(bindings))) as inbox:
            yield inbox

    def is_deserted(self, exchange: Exchange, key: str) -> bool:
        """See ``celeriac.contracts.fanout.KnowsListeners``."""
        return self._broadcasts.is_deserted(exchange, key)

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        frame = _frame(envelope, reply_to.exchange, reply_to.key)
        return await self._broadcasts.answer(reply_to, keep, frame)

    @asynccontextmanager
    async def ask(
        self,
        exchange: Exchange,
        envelope: Envelope,
        reply_to: ReplyTo,
        *,
        key: str = "",
        expect: int | None = None,
    ) -> AsyncIterator[Inbox]:
        async with self._open(Listener(str(uuid.uuid4()), (answers_to(reply_to),), asks=True)) as inbox:
            asked = await self.publish(exchange, envelope, key)
            inbox.expect(expect, asked)
            yield inbox

    async def close(self) -> None:
        """End all listening. Idempotent."""
        for listening in tuple(self._listening):
            await listening.close()

    @asynccontextmanager
    async def _open(self, listener: Listener) -> AsyncIterator[Inbox]:
        listening = _Listening(self._broadcasts, listener)
        await listening.open()
        self._listening.add(listening)
        try:
            yield listening.inbox
        finally:
            self._listening.discard(listening)
            await listening.close()


class _Listening:
    """One ``listen`` or ``ask`` block."""

    def __init__(self, broadcasts: Broadcasts, listener: Listener) -> None:
        self.inbox = Inbox()
        self._broadcasts = broadcasts
        self._listener = listener
        self._rung = asyncio.Event()
        self._last = 0
        self._renew_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._broadcasts.hear(self._listener, self._rung)
        try:
            self._last = await self._bind()
        except BaseException:
            await self._broadcasts.ignore(self._listener, self._rung)
            raise
        self._reading = asyncio.create_task(self._read(), name="celeriac-fanout")

    async def close(self) -> None:
        """Stop listening, and raise ``BrokerUnavailable`` in the task that reads."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        reading.cancel()
        await asyncio.wait([reading])
        await self._broadcasts.ignore(self._listener, self._rung)
        with suppress(BrokerError):  # it ends with its lease
            await self._broadcasts.unbind(self._listener)
        self.inbox.fail(
            BrokerUnavailable("nobody listens any more: the block was left, or the broker closed")
        )

    async def _read(self) -> None:
        try:
            while True:
                await set_within(self._rung, self._broadcasts.pulse)
                self._rung.clear()
                try:
                    await self._look()
                except BrokerUnavailable as error:
                    _log.debug("what was said cannot be read, and is looked for again: %s", error)
                    self._rung.set()
                await asyncio.sleep(_BETWEEN_LOOKS)
        except BrokerError as error:
            self.inbox.fail(error)

    async def _look(self) -> None:
        if self._broadcasts.clock.monotonic() >= self._renew_at:
            bound = await self._bind()
            if bound <= self._last:
                # Where the tables were emptied, or a file took the place of another, the numbers begin anew.
                self._last = bound
                if not self._listener.asks:  # answers may have no numbers
                    return
        for said in await self._broadcasts.news(self._listener, self._last):
            self._last = said.number
            if self._listener.hears(said.exchange, said.key):
                self.inbox.put(unpack(said.frame))

    async def _bind(self) -> int:
        last = await self._broadcasts.bind(self._listener)
        self._renew_at = self._broadcasts.clock.monotonic() + LEASE / 3
        return last


def count_hearing(bound: Iterable[tuple[str, str]], exchange: Exchange, key: str) -> int:
    """Return how many listeners hear a message, of the names and keys that are bound to its exchange."""
    return len({listener for listener, own in bound if not exchange.by_key or leads(own, key)})


def _frame(envelope: Envelope, exchange: str, key: str) -> bytes:
    return pack(envelope, delivery_tag=str(uuid.uuid4()), route=Route(key, exchange=exchange))
