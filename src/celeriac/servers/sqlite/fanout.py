"""Fanout by two tables of a SQLite file: one of the listeners, one of the messages.

Rules: without listeners no message is written. A listener is kept until it leaves or its lease ends, and a message
until it expires; each write deletes expired rows of both tables. Answers go the same way as questions.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from celeriac.broker import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.inbox import Inbox, hears, leads
from celeriac.servers.sqlite.link import LARGE
from celeriac.servers.sqlite.messages import as_json
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack, unpack

_log = logging.getLogger("celeriac.broker.sqlite")

_LEASE = 30.0
"""Seconds after its last renewal until a listener no longer counts."""

_KEEP = 60.0
"""Seconds that a message is kept for those who listen."""

_BETWEEN_LOOKS = 0.02
"""Seconds between looks at the file: every message of a busy queue wakes listeners, mostly for nothing."""

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


class SqliteFanout:
    """Listeners of one file; see ``celeriac.broker.Fanout``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._listening: set[_Listening] = set()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int:
        return await self._say(exchange, envelope, key, _KEEP)

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        listening = _Listening(self._file, bindings)
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
        frame = pack(envelope, delivery_tag=str(uuid.uuid4()), route=Route(key, exchange=exchange.name))
        if len(frame) >= LARGE:
            await self._file.link.check_size(len(frame), f"a message to {exchange.name}")
        topics: list[str] = []

        def who(connection: sqlite3.Connection) -> int:
            known = connection.execute(_WHO_LISTENS, {"exchange": exchange.name}).fetchall()
            return len(
                {listener for listener, bound in known if not exchange.by_key or leads(str(bound), key)}
            )

        def say(connection: sqlite3.Connection) -> int:
            now = self._file.clock.now()
            _sweep(connection, now)
            hearing = who(connection)
            if hearing:
                facts = {"exchange": exchange.name, "key": key, "expires": now + keep, "frame": frame}
                connection.execute(_SAY, facts)
                topics.append(_topic(exchange.name))
            return hearing

        if not await self._file.link.read(
            who
        ):  # heartbeats are mostly heard by nobody, and need no transaction
            return 0
        count = await self._file.link.write(say, lambda: topics)
        self._file.ring(topics)
        return count


class _Listening:
    """One ``listen`` block."""

    def __init__(self, file: QueueFile, bindings: Sequence[Binding]) -> None:
        self.inbox = Inbox()
        self._file = file
        self._bindings = tuple(bindings)
        self._topics = list(dict.fromkeys(_topic(binding.exchange.name) for binding in bindings))
        self._listener = str(uuid.uuid4())
        self._rung = asyncio.Event()
        self._last = 0
        self._renew_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._file.hear(self._rung, self._topics)
        try:
            self._last = await self._file.link.write(self._begin)
        except BaseException:
            await self._file.ignore(self._rung, self._topics)
            raise
        self._reading = asyncio.create_task(self._read(), name="celeriac-fanout")

    async def close(self) -> None:
        """Stop listening, and raise ``BrokerUnavailable`` in the task that reads."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        reading.cancel()
        await asyncio.wait([reading])
        await self._file.ignore(self._rung, self._topics)
        with suppress(BrokerError):  # it ends with its lease
            await self._file.link.write(self._unbind)
        self.inbox.fail(
            BrokerUnavailable("nobody listens any more: the block was left, or the broker closed")
        )

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
                await asyncio.sleep(_BETWEEN_LOOKS)
        except BrokerError as error:
            self.inbox.fail(error)

    async def _look(self) -> None:
        if self._file.clock.monotonic() >= self._renew_at:
            await self._file.link.write(self._bind)
        for number, frame in await self._file.link.read(self._news):
            self._last = number
            self.inbox.put(unpack(frame))

    def _begin(self, connection: sqlite3.Connection) -> int:
        """Write down this listener; return the number of the last message before it, which it does not get."""
        self._bind(connection)
        return int(scalar(connection, _LAST) or 0)

    def _bind(self, connection: sqlite3.Connection) -> None:
        now = self._file.clock.now()
        _sweep(connection, now)
        facts = {"listener": self._listener, "expires": now + _LEASE}
        for binding in self._bindings:
            connection.execute(_BIND, facts | {"exchange": binding.exchange.name, "key": binding.key})
        # In a file that took the place of another, the numbers begin anew.
        self._last = min(self._last, int(scalar(connection, _LAST) or 0))
        self._renew_at = self._file.clock.monotonic() + _LEASE / 3

    def _unbind(self, connection: sqlite3.Connection) -> None:
        connection.execute(_UNBIND, {"listener": self._listener})

    def _news(self, connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
        """Return the messages since the last look that match its bindings."""
        exchanges = as_json(sorted({binding.exchange.name for binding in self._bindings}))
        facts = {"last": self._last, "now": self._file.clock.now(), "exchanges": exchanges}
        return [
            (number, frame if isinstance(frame, bytes) else b"")
            for number, exchange, key, frame in connection.execute(_NEWS, facts).fetchall()
            if any(hears(binding, exchange, str(key)) for binding in self._bindings)
        ]


def _sweep(connection: sqlite3.Connection, now: float) -> None:
    for statement in _SWEEP:
        connection.execute(statement, {"now": now, "ahead": now + 2 * _KEEP})


def _topic(exchange: str) -> str:
    return f"exchange {exchange}"
