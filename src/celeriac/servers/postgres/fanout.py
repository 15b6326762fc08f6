"""Fanout in three tables: of the listeners, of the messages, and of the answers.

Rules: messages are numbered in the order of their commits, by a lock of the transaction, so that none comes to be seen
after a later one. An answer is for one listener, which deletes it when it reads it, so answers need neither lock nor
number. Housekeeping deletes what has expired.

A process that spoke to nobody listens for listeners, which tell that they have come, and remembers until then that
nobody hears: so its heartbeats cost the server nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from celeriac.clock import Clock
from celeriac.contracts.fanout import Exchange, ReplyTo
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.sleeping import channel_of
from celeriac.servers.row_fanout import KEEP, LEASE, Listener, Said, count_hearing

_BLIND_PULSE = 0.5
"""Seconds between looks where nothing can be heard."""

_DESERTED = LEASE
"""Seconds after which it is asked again who listens, although nobody is known to have come."""

# A row that lasts longer was written by none of us; its number may be one that no further row reaches.
_LIVES = f"expires > {NOW} AND expires < {NOW} + {2 * KEEP}"

_WHO_LISTENS = f"SELECT listener, key FROM celeriac_binding WHERE exchange = $1 AND {_LIVES}"
_SAY = f"""
    WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext('celeriac broadcast'), hashtext($6))),
    said AS (
        INSERT INTO celeriac_broadcast (exchange, key, expires, frame) SELECT $1, $2, {NOW} + $3, $4 FROM alone)
    SELECT pg_notify($5, '')"""
_ANSWER = f"""
    WITH said AS (
        INSERT INTO celeriac_reply (exchange, key, expires, frame)
        SELECT $1, $2, {NOW} + $3, $4 WHERE EXISTS (
            SELECT FROM celeriac_binding WHERE exchange = $1 AND key = $2 AND {_LIVES})
        RETURNING 1)
    SELECT pg_notify($5, '') FROM said"""
# A listener that comes, or comes back after its lease, says so.
_BIND = f"""
    WITH new AS MATERIALIZED (
        SELECT DISTINCT channel FROM unnest($2::text[], $3::text[], $4::text[]) AS given (exchange, key, channel)
        WHERE NOT EXISTS (
            SELECT FROM celeriac_binding AS binding
            WHERE binding.listener = $1 AND binding.exchange = given.exchange AND binding.key = given.key
              AND {_LIVES})),
    bound AS (
        INSERT INTO celeriac_binding (listener, exchange, key, expires)
        SELECT $1, exchange, key, {NOW} + {LEASE} FROM unnest($2::text[], $3::text[]) AS given (exchange, key)
        ON CONFLICT (listener, exchange, key) DO UPDATE SET expires = excluded.expires)
    SELECT coalesce(max(id), 0), (SELECT count(pg_notify(channel, '')) FROM new WHERE channel IS NOT NULL)
    FROM celeriac_broadcast WHERE {_LIVES}"""
_UNBIND = "DELETE FROM celeriac_binding WHERE listener = $1"
_NEWS = f"""
    SELECT id, exchange, key, frame FROM celeriac_broadcast
    WHERE id > $1 AND {_LIVES} AND exchange = ANY($2::text[]) ORDER BY id"""
_ANSWERS = f"""
    WITH read AS (
        DELETE FROM celeriac_reply USING unnest($1::text[], $2::text[]) AS given (exchange, key)
        WHERE celeriac_reply.exchange = given.exchange AND celeriac_reply.key = given.key
        RETURNING id, celeriac_reply.exchange, celeriac_reply.key, frame, expires)
    SELECT exchange, key, frame FROM read WHERE {_LIVES} ORDER BY id"""


class PostgresBroadcasts:
    """See ``celeriac.servers.row_fanout.Broadcasts``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._link = queues.link
        self._ears: dict[tuple[str, asyncio.Event], _Ear] = {}
        self._arrivals: dict[str, _Arrivals] = {}

    @property
    def clock(self) -> Clock:
        """The clock of this process."""
        return self._queues.clock

    @property
    def pulse(self) -> float:
        return _BLIND_PULSE if self._queues.waking.polls else LEASE / 3

    async def say(self, exchange: Exchange, key: str, keep: float, frame: bytes) -> int:
        self._queues.join()
        arrivals = self._looking_out(exchange.name)
        came = arrivals.came if arrivals else 0
        hearing = count_hearing(await self._link.fetch(_WHO_LISTENS, exchange.name), exchange, key)
        if hearing:
            schema = (await self._link.facts()).schema
            channel = channel_of(schema, _topic(exchange.name))
            await self._link.fetch(_SAY, exchange.name, key, keep, frame, channel, schema)
        elif arrivals is None:
            await self._look_out(exchange.name)
        elif arrivals.came == came:  # else one came after the question
            arrivals.none_until[key] = self.clock.monotonic() + _DESERTED
        return hearing

    async def answer(self, reply_to: ReplyTo, keep: float, frame: bytes) -> bool:
        self._queues.join()
        exchange, key = reply_to.exchange, reply_to.key
        channel = channel_of((await self._link.facts()).schema, _topic(exchange, key))
        return bool(await self._link.fetch(_ANSWER, exchange, key, keep, frame, channel))

    async def hear(self, listener: Listener, rung: asyncio.Event) -> None:
        self._queues.join()
        ear = self._ears[listener.name, rung] = _Ear(rung)
        for channel in await self._channels(listener):
            await self._link.hear(channel, ear)

    async def ignore(self, listener: Listener, rung: asyncio.Event) -> None:
        ear = self._ears.pop((listener.name, rung))
        for channel in await self._channels(listener):
            await self._link.ignore(channel, ear)

    async def bind(self, listener: Listener) -> int:
        pairs = listener.pairs
        exchanges, keys = [exchange for exchange, _ in pairs], [key for _, key in pairs]
        # Nobody heartbeats to one who asks a question.
        told = [] if listener.asks else [await self._arrivals_channel(name) for name in exchanges]
        return int(await self._link.value(_BIND, listener.name, exchanges, keys, told))

    def is_deserted(self, exchange: Exchange, key: str) -> bool:
        arrivals = self._looking_out(exchange.name)
        return arrivals is not None and arrivals.none_until.get(key, 0.0) > self.clock.monotonic()

    def _looking_out(self, exchange: str) -> _Arrivals | None:
        """Return what notes that a listener comes to the exchange, ``None`` where that would not be heard of now."""
        arrivals = self._arrivals.get(exchange)
        listening = self._queues.connections.listening
        return arrivals if arrivals is not None and listening.hears(arrivals.channel, arrivals) else None

    async def _look_out(self, exchange: str) -> None:
        """Note from now on that a listener comes to the exchange."""
        if (arrivals := self._arrivals.get(exchange)) is None:
            arrivals = self._arrivals[exchange] = _Arrivals(await self._arrivals_channel(exchange))
        await self._link.hear(arrivals.channel, arrivals)

    async def _arrivals_channel(self, exchange: str) -> str:
        return channel_of((await self._link.facts()).schema, f"listeners of {exchange}")

    async def unbind(self, listener: Listener) -> None:
        await self._link.fetch(_UNBIND, listener.name)

    async def news(self, listener: Listener, last: int) -> Sequence[Said]:
        if listener.asks:
            pairs = listener.pairs
            rows = await self._link.fetch(_ANSWERS, [name for name, _ in pairs], [key for _, key in pairs])
            return [Said(last, *row) for row in rows]
        return [Said(*row) for row in await self._link.fetch(_NEWS, last, listener.exchanges)]

    async def _channels(self, listener: Listener) -> list[str]:
        schema = (await self._link.facts()).schema
        if listener.asks:
            return [channel_of(schema, _topic(exchange, key)) for exchange, key in listener.pairs]
        return [channel_of(schema, _topic(exchange)) for exchange in listener.exchanges]


class _Arrivals:
    """Forgets that an exchange had no listeners when one comes.

    :ivar came: how often that was.
    :ivar none_until: for each key without a listener until when that need not be asked again, in monotonic seconds.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.came = 0
        self.none_until: dict[str, float] = {}

    def __call__(self, _payload: str) -> None:
        self.came += 1
        self.none_until.clear()


class _Ear:
    """Sets an event at every notification."""

    def __init__(self, rung: asyncio.Event) -> None:
        self._rung = rung

    def __call__(self, _payload: str) -> None:
        self._rung.set()


def _topic(exchange: str, key: str | None = None) -> str:
    """Return what no queue's channel is named after, but where a queue has this very name: a wake too many."""
    return f"exchange {exchange}" if key is None else f"answers {exchange} {key}"
