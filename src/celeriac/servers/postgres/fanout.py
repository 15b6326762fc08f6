"""Fanout by two tables: one of the listeners, one of the messages.

Rules: without listeners no message is written. Messages are numbered in the order of their commits, by a lock of the
transaction, so that none comes to be seen after a later one. A listener is kept until it leaves or its lease ends,
and a message until it expires; housekeeping deletes both. Answers go the same way as questions.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from celeriac.broker import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.inbox import Inbox, hears, leads
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.sleeping import channel_of
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack, unpack

_log = logging.getLogger("celeriac.broker.postgres")

_LEASE = 30.0
"""Seconds after its last renewal until a listener no longer counts."""

_KEEP = 60.0
"""Seconds that a message is kept for those who listen."""

_BETWEEN_LOOKS = 0.02
"""Seconds between looks: a busy exchange notifies for each message."""

# A row that lasts longer was written by none of us; its number may be one that no further row reaches.
_LIVES = f"expires > {NOW} AND expires < {NOW} + {2 * _KEEP}"

_WHO_LISTENS = f"SELECT listener, key FROM celeriac_binding WHERE exchange = $1 AND {_LIVES}"
_SAY = f"""
    WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext('celeriac broadcast'), hashtext($6))),
    said AS (
        INSERT INTO celeriac_broadcast (exchange, key, expires, frame) SELECT $1, $2, {NOW} + $3, $4 FROM alone)
    SELECT pg_notify($5, '')"""
_BIND = f"""
    INSERT INTO celeriac_binding (listener, exchange, key, expires)
    SELECT $1, exchange, key, {NOW} + {_LEASE} FROM unnest($2::text[], $3::text[]) AS given (exchange, key)
    ON CONFLICT (listener, exchange, key) DO UPDATE SET expires = excluded.expires"""
_UNBIND = "DELETE FROM celeriac_binding WHERE listener = $1"
_LAST = f"SELECT coalesce(max(id), 0) FROM celeriac_broadcast WHERE {_LIVES}"
_NEWS = f"""
    SELECT id, exchange, key, frame FROM celeriac_broadcast
    WHERE id > $1 AND {_LIVES} AND exchange = ANY($2::text[]) ORDER BY id"""


class PostgresFanout:
    """Listeners of one database; see ``celeriac.broker.Fanout``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._listening: set[_Listening] = set()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int:
        return await self._say(exchange, envelope, key, _KEEP)

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        listening = _Listening(self._queues, bindings)
        await listening.open()
        self._listening.add(listening)
        try:
            yield listening.inbox
        finally:
            self._listening.discard(listening)
            await listening.close()

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        return await self._say(Exchange(reply_to.exchange, by_key=True), envelope, reply_to.key, keep) > 0

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
        answers = Binding(exchange=Exchange(reply_to.exchange, by_key=True), key=reply_to.key)
        async with self.listen([answers]) as inbox:
            asked = await self.publish(exchange, envelope, key)
            inbox.expect(expect, asked)
            yield inbox

    async def close(self) -> None:
        """End all listening. Idempotent."""
        for listening in tuple(self._listening):
            await listening.close()

    async def _say(self, exchange: Exchange, envelope: Envelope, key: str, keep: float) -> int:
        self._queues.connections.join(self._queues)
        frame = pack(envelope, delivery_tag=str(uuid.uuid4()), route=Route(key, exchange=exchange.name))
        link = self._queues.link
        known = await link.fetch(_WHO_LISTENS, exchange.name)
        hearing = {listener for listener, bound in known if not exchange.by_key or leads(bound, key)}
        if hearing:
            schema = (await link.facts()).schema
            channel = _channel(schema, exchange.name)
            await link.fetch(_SAY, exchange.name, key, keep, frame, channel, schema)
        return len(hearing)


class _Listening:
    """One ``listen`` block."""

    def __init__(self, queues: Queues, bindings: Sequence[Binding]) -> None:
        self.inbox = Inbox()
        self._queues = queues
        self._link = queues.link
        self._bindings = tuple(bindings)
        self._exchanges = sorted({binding.exchange.name for binding in bindings})
        self._listener = str(uuid.uuid4())
        self._rung = asyncio.Event()
        self._last = 0
        self._renew_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._queues.connections.join(self._queues)
        for channel in await self._channels():
            await self._link.hear(channel, self._ring)
        try:
            await self._bind()
            self._last = await self._link.value(_LAST)
        except BaseException:
            await self._ignore()
            raise
        self._reading = asyncio.create_task(self._read(), name="celeriac-fanout")

    async def close(self) -> None:
        """Stop listening, and raise ``BrokerUnavailable`` in the task that reads."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        reading.cancel()
        await asyncio.wait([reading])
        await self._ignore()
        with suppress(BrokerError):  # it ends with its lease
            await self._link.fetch(_UNBIND, self._listener)
        self.inbox.fail(
            BrokerUnavailable("nobody listens any more: the block was left, or the broker closed")
        )

    def _ring(self, _payload: str) -> None:
        self._rung.set()

    async def _read(self) -> None:
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEASE / 3):
                        await self._rung.wait()
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
        if self._queues.clock.monotonic() >= self._renew_at:
            await self._bind()
        for number, exchange, key, frame in await self._link.fetch(_NEWS, self._last, self._exchanges):
            self._last = number
            if any(hears(binding, exchange, key) for binding in self._bindings):
                self.inbox.put(unpack(frame))

    async def _bind(self) -> None:
        names = [binding.exchange.name for binding in self._bindings]
        keys = [binding.key for binding in self._bindings]
        pairs = sorted(set(zip(names, keys, strict=True)))
        await self._link.fetch(_BIND, self._listener, [name for name, _ in pairs], [key for _, key in pairs])
        # The tables are emptied when the server crashes, and the numbers begin anew.
        self._last = min(self._last, await self._link.value(_LAST))
        self._renew_at = self._queues.clock.monotonic() + _LEASE / 3

    async def _channels(self) -> list[str]:
        schema = (await self._link.facts()).schema
        return [_channel(schema, exchange) for exchange in self._exchanges]

    async def _ignore(self) -> None:
        for channel in await self._channels():
            await self._link.ignore(channel, self._ring)


def _channel(schema: str, exchange: str) -> str:
    return channel_of(schema, f"exchange {exchange}")
