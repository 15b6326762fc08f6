"""Fanout in two tables of a SQLite file: one of the listeners, one of the messages.

Rules: each write deletes expired rows of both tables. Answers go the same way as questions.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence

from celeriac.clock import Clock
from celeriac.contracts.fanout import Exchange, ReplyTo
from celeriac.servers.row_fanout import KEEP, LEASE, Listener, Said, count_hearing
from celeriac.servers.sqlite.link import LARGE
from celeriac.servers.sqlite.messages import as_json
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.reading import scalar

# What lasts longer was written by none of us; texts and blobs come after every number.
_SWEEP = (
    "DELETE FROM celeriac_binding WHERE expires <= :now OR expires > :ahead",
    "DELETE FROM celeriac_broadcast WHERE expires <= :now OR expires > :ahead",
)
_WHO_LISTENS = "SELECT listener, key FROM celeriac_binding WHERE exchange = :exchange"
_SAY = "INSERT INTO celeriac_broadcast (exchange, key, expires, frame) VALUES (:exchange, :key, :expires, :frame)"
_BIND = """
    INSERT INTO celeriac_binding (listener, exchange, key, expires) VALUES (:listener, :exchange, :key, :expires)
    ON CONFLICT (listener, exchange, key) DO UPDATE SET expires = excluded.expires"""
_UNBIND = "DELETE FROM celeriac_binding WHERE listener = :listener"
_LAST = "SELECT max(id) FROM celeriac_broadcast"
_NEWS = """
    SELECT id, exchange, key, frame FROM celeriac_broadcast
    WHERE id > :last AND expires > :now AND exchange IN (SELECT value FROM json_each(:exchanges)) ORDER BY id"""


class SqliteBroadcasts:
    """See ``celeriac.servers.row_fanout.Broadcasts``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    @property
    def clock(self) -> Clock:
        """The clock of this process, as all times in the file are."""
        return self._file.clock

    @property
    def pulse(self) -> float:
        return LEASE / 3

    async def say(self, exchange: Exchange, key: str, keep: float, frame: bytes) -> int:
        if len(frame) >= LARGE:
            await self._file.link.check_size(len(frame), f"a message to {exchange.name}")
        topics: list[str] = []

        def count_listeners(connection: sqlite3.Connection) -> int:
            known = connection.execute(_WHO_LISTENS, {"exchange": exchange.name}).fetchall()
            return count_hearing([(listener, str(bound)) for listener, bound in known], exchange, key)

        def say(connection: sqlite3.Connection) -> int:
            now = self.clock.now()
            _sweep(connection, now)
            hearing = count_listeners(connection)
            if hearing:
                facts = {"exchange": exchange.name, "key": key, "expires": now + keep, "frame": frame}
                connection.execute(_SAY, facts)
                topics.extend(_topics([exchange.name]))
            return hearing

        # Most heartbeats have no listener, and need no transaction.
        if not await self._file.link.read(count_listeners):
            return 0
        count = await self._file.link.write(say, lambda: topics)
        self._file.ring(topics)
        return count

    async def answer(self, reply_to: ReplyTo, keep: float, frame: bytes) -> bool:
        return await self.say(Exchange(reply_to.exchange, by_key=True), reply_to.key, keep, frame) > 0

    async def hear(self, listener: Listener, rung: asyncio.Event) -> None:
        await self._file.hear(rung, _topics(listener.exchanges))

    async def ignore(self, listener: Listener, rung: asyncio.Event) -> None:
        await self._file.ignore(rung, _topics(listener.exchanges))

    async def bind(self, listener: Listener) -> int:
        def bind(connection: sqlite3.Connection) -> int:
            now = self.clock.now()
            _sweep(connection, now)
            for exchange, key in listener.pairs:
                facts = {"listener": listener.name, "exchange": exchange, "key": key, "expires": now + LEASE}
                connection.execute(_BIND, facts)
            return int(scalar(connection, _LAST) or 0)

        return await self._file.link.write(bind)

    async def unbind(self, listener: Listener) -> None:
        await self._file.link.write(
            lambda connection: connection.execute(_UNBIND, {"listener": listener.name})
        )

    def is_deserted(self, exchange: Exchange, key: str) -> bool:
        return False  # a look at the file costs no server anything

    async def news(self, listener: Listener, last: int) -> Sequence[Said]:
        facts = {"last": last, "now": self.clock.now(), "exchanges": as_json(listener.exchanges)}

        def news(connection: sqlite3.Connection) -> list[Said]:
            return [
                Said(number, exchange, str(key), frame if isinstance(frame, bytes) else b"")
                for number, exchange, key, frame in connection.execute(_NEWS, facts).fetchall()
            ]

        return await self._file.link.read(news)


def _sweep(connection: sqlite3.Connection, now: float) -> None:
    for statement in _SWEEP:
        connection.execute(statement, {"now": now, "ahead": now + 2 * KEEP})


def _topics(exchanges: Iterable[str]) -> list[str]:
    return [f"exchange {exchange}" for exchange in exchanges]
