"""Which copies of messages were taken, in a table of celeriac's own.

Rules: a key has a row for each of its messages, with the number of the copy that was taken first. Forgetting leaves
them for a minute, also for copies that are taken only then: a row without a name says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

from celeriac.clock import Clock
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.sqlite.link import SqliteLink
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy

_BATCH = 500

_TAKE = """
    INSERT INTO celeriac_copy (id, name, number, expires)
    VALUES (:id, :name, :number, coalesce((SELECT min(expires) FROM celeriac_copy WHERE id = :id), :expires))
    ON CONFLICT (id, name) DO UPDATE SET number = number
    RETURNING number"""
_MARK = """
    INSERT INTO celeriac_copy (id, name, number, expires) VALUES (:id, '', '', :expires)
    ON CONFLICT (id, name) DO NOTHING"""
_SHORTEN = "UPDATE celeriac_copy SET expires = min(expires, :expires) WHERE id = :id"
_DROP = "DELETE FROM celeriac_copy WHERE expires < :now"


class SqlCopies:
    """See ``celeriac.backend.Copies``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._take: Coalescer[Copy, bool] = Coalescer(self._take_all, _BATCH)
        self._forget: Coalescer[str, None] = Coalescer(self._forget_all, _BATCH)

    async def is_first(self, copy: Copy) -> bool:
        return await self._take(copy)

    async def forget(self, key: str) -> None:
        await self._forget(key)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._take.drain()
        await self._forget.drain()

    async def _take_all(self, batch: Sequence[Copy]) -> list[bool]:
        return await self._link.write(partial(self._take_each, batch=batch))

    async def _forget_all(self, keys: Sequence[str]) -> list[None]:
        expires = self._clock.now() + ONCE_SETTLED
        rows = [{"id": key, "expires": expires} for key in keys]
        await self._link.write(partial(self._shorten, rows=rows))
        return [None] * len(keys)

    # --- in the file's thread ------------------------------------------------------------------------------

    def _take_each(self, connection: sqlite3.Connection, batch: Sequence[Copy]) -> list[bool]:
        connection.execute(_DROP, {"now": self._clock.now()})
        return [self._take_one(connection, copy) for copy in batch]

    def _take_one(self, connection: sqlite3.Connection, copy: Copy) -> bool:
        row = {"id": copy.key, "name": copy.name, "number": copy.number, "expires": self._clock.now() + ONCE}
        return bool(scalar(connection, _TAKE, row) == copy.number)

    def _shorten(self, connection: sqlite3.Connection, rows: Sequence[dict[str, object]]) -> None:
        connection.executemany(_MARK, rows)
        connection.executemany(_SHORTEN, rows)
