"""The board of one SQLite file, in tables of its own.

Rules: each call is one transaction, which other calls may share. A write first deletes the expired rows of its table.
An expiry that is no number, or is infinite, counts as past.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.board import (
    LEASE_AHEAD,
    LONGEST_WAIT,
    REVOKED,
    SLOT_AHEAD,
    SLOT_KEPT,
    Contents,
    Mark,
    Tenure,
)
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.sqlite.link import SqliteLink
from celeriac.servers.sqlite.messages import as_json
from celeriac.servers.sqlite.reading import scalar
from celeriac.servers.sqlite.tables import BOARD

_Facts = dict[str, Any]
"""The values of a statement's parameters."""

_BATCH = 500
"""Marks that are written by one job."""

# Texts and blobs come after every number.
_OVER = "DELETE FROM {} WHERE expires <= :now", "DELETE FROM {} WHERE expires >= 9e999"

_ADD = """
    INSERT INTO celeriac_member (name, kind, member, expires)
    SELECT :name, :kind, value, :expires FROM json_each(:members) WHERE true
    ON CONFLICT (name, kind, member) DO UPDATE SET expires = max(expires, excluded.expires)"""
_REMOVE = """
    DELETE FROM celeriac_member
    WHERE name = :name AND kind = :kind AND member IN (SELECT value FROM json_each(:members))"""
_LOAD = """
    SELECT kind, CAST(member AS TEXT), expires FROM celeriac_member
    WHERE name = :name AND kind IN (SELECT value FROM json_each(:kinds)) AND expires > :now AND expires < 9e999"""
# A revision that is no number counts as 0.
_ADVANCE = """
    INSERT INTO celeriac_revision (name, number) VALUES (:name, 1) ON CONFLICT (name) DO UPDATE SET number = 1 +
        CASE WHEN typeof(number) = 'integer' AND number BETWEEN 0 AND 9007199254740991 THEN number ELSE 0 END"""
_REVISION = """
    SELECT CASE WHEN typeof(number) = 'integer' AND number BETWEEN 0 AND 9007199254740991 THEN number ELSE 0 END
    FROM celeriac_revision WHERE name = :name"""

_PUT = """
    INSERT INTO celeriac_mark (key, name, value, expires)
    VALUES (:key, :name, :value, coalesce((SELECT min(expires) FROM celeriac_mark WHERE key = :key), :expires))
    ON CONFLICT (key, name) DO UPDATE SET value = value
    RETURNING CAST(coalesce(value, '') AS TEXT)"""
_TAKE_DOWN = (
    "DELETE FROM celeriac_mark WHERE key = :key AND name = :name AND value = :value AND expires > :now"
)
# A key without marks keeps its expiry under the name of a mark that no caller puts.
_MARK_KEY = """
    INSERT INTO celeriac_mark (key, name, value, expires) VALUES (:key, char(0), '', :expires)
    ON CONFLICT (key, name) DO NOTHING"""
_SHORTEN = "UPDATE celeriac_mark SET expires = min(expires, :expires) WHERE key = :key"

_HOLD = """
    INSERT INTO celeriac_lease (name, holder, expires) VALUES (:name, :holder, :expires)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires
    WHERE holder = excluded.holder OR expires > :ahead"""
_RELEASE = "DELETE FROM celeriac_lease WHERE name = :name AND holder = :holder"

# A last slot that is no number, or too far ahead, is none of ours.
_ADVANCE_SLOT = """
    INSERT INTO celeriac_slot (entry, last, expires) VALUES (:entry, :slot, :expires)
    ON CONFLICT (entry) DO UPDATE SET last = excluded.last, expires = excluded.expires
    WHERE NOT (typeof(last) IN ('real', 'integer') AND last < :ahead AND last >= excluded.last)"""
_LAST_SLOTS = """
    SELECT entry, last FROM celeriac_slot
    WHERE entry IN (SELECT value FROM json_each(:entries)) AND typeof(last) IN ('real', 'integer') AND last < :ahead"""

_MOMENT = """
    SELECT at {} FROM celeriac_turn
    WHERE name = :name AND typeof(at) IN ('real', 'integer') AND at <= :latest
    ORDER BY at DESC LIMIT 1 OFFSET {}"""
_LAST = _MOMENT.format("", "0")
_SO_MANY_AGO = _MOMENT.format("+ :window", ":most - 1")
_BOOK = "INSERT INTO celeriac_turn (name, at, expires) VALUES (:name, :at, :at + :window)"


class SqliteSets:
    """See ``celeriac.contracts.board.Sets``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        await self._change(_ADD, name, members, keep)

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        await self._change(_REMOVE, name, members, 0.0)

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        def load(connection: sqlite3.Connection) -> Contents:
            found: dict[str, dict[str, float]] = {kind: {} for kind in sets}
            facts = {"name": name, "kinds": as_json(list(sets)), "now": self._clock.now()}
            for kind, member, expires in connection.execute(_LOAD, facts).fetchall():
                found[kind][member] = expires
            return Contents(read_revision(connection, name), found)

        return await self._link.write(load)

    async def revision(self, name: str) -> int:
        return await self._link.read(lambda connection: read_revision(connection, name))

    async def _change(
        self, statement: str, name: str, members: Mapping[str, Collection[str]], keep: float
    ) -> None:
        now = self._clock.now()

        def change(connection: sqlite3.Connection) -> None:
            _drop_ended(connection, "celeriac_member", now)
            for kind, names in members.items():
                facts = {"name": name, "kind": kind, "members": as_json(list(names)), "expires": now + keep}
                connection.execute(statement, facts)
            connection.execute(_ADVANCE, {"name": name})

        await self._link.write(change)


class SqliteMarks:
    """See ``celeriac.contracts.board.Marks``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._put: Coalescer[_Facts, str] = Coalescer(self._put_all, _BATCH)
        self._shorten: Coalescer[_Facts, None] = Coalescer(self._shorten_all, _BATCH)

    async def put(self, key: str, name: str, value: str, keep: float) -> str:
        return await self._put(
            {"key": key, "name": name, "value": value, "expires": self._clock.now() + keep}
        )

    async def remove(self, key: str, name: str, value: str) -> bool:
        facts = {"key": key, "name": name, "value": value, "now": self._clock.now()}
        return await self._link.write(lambda connection: connection.execute(_TAKE_DOWN, facts).rowcount == 1)

    async def shorten(self, key: str, keep: float) -> None:
        await self._shorten({"key": key, "expires": self._clock.now() + keep})

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._put.drain()
        await self._shorten.drain()

    async def _put_all(self, batch: Sequence[_Facts]) -> list[str]:
        def put(connection: sqlite3.Connection) -> list[str]:
            _drop_ended(connection, "celeriac_mark", self._clock.now())
            return [str(scalar(connection, _PUT, facts)) for facts in batch]

        return await self._link.write(put)

    async def _shorten_all(self, batch: Sequence[_Facts]) -> list[None]:
        def shorten(connection: sqlite3.Connection) -> None:
            _drop_ended(connection, "celeriac_mark", self._clock.now())
            connection.executemany(_MARK_KEY, batch)
            connection.executemany(_SHORTEN, batch)

        await self._link.write(shorten)
        return [None] * len(batch)


class SqliteLeases:
    """See ``celeriac.contracts.board.Leases``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        now = self._clock.now()
        facts = {"name": name, "holder": holder, "expires": now + seconds, "ahead": now + LEASE_AHEAD}

        def hold(connection: sqlite3.Connection) -> bool:
            _drop_ended(connection, "celeriac_lease", now)
            return connection.execute(_HOLD, facts).rowcount == 1

        return Tenure(await self._link.write(hold))

    async def release(self, name: str, holder: str) -> None:
        facts = {"name": name, "holder": holder}
        await self._link.write(lambda connection: connection.execute(_RELEASE, facts).rowcount)


class SqliteSlots:
    """See ``celeriac.contracts.board.Slots``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._advance: Coalescer[tuple[str, float], bool] = Coalescer(self._advance_all, _BATCH)

    async def advance(self, entry: str, slot: float) -> bool:
        return await self._advance((entry, slot))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        facts = {"entries": as_json(list(entries)), "ahead": self._clock.now() + SLOT_AHEAD}
        rows = await self._link.read(lambda connection: connection.execute(_LAST_SLOTS, facts).fetchall())
        return dict(rows)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._advance.drain()

    async def _advance_all(self, batch: Sequence[tuple[str, float]]) -> list[bool]:
        def advance(connection: sqlite3.Connection) -> list[bool]:
            return [advance_slot(connection, entry, slot, self._clock.now()) for entry, slot in batch]

        return await self._link.write(advance)


class SqliteWindows:
    """See ``celeriac.contracts.board.Windows``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def turn(self, name: str, most: int, window: float, wait: float = 0.0) -> float:
        now = self._clock.now()
        facts = {"name": name, "most": most, "window": window, "latest": now + LONGEST_WAIT}

        def turn(connection: sqlite3.Connection) -> float:
            _drop_ended(connection, "celeriac_turn", now)
            moments = scalar(connection, _LAST, facts), scalar(connection, _SO_MANY_AGO, facts)
            at: float = max(now, *(moment or now for moment in moments))
            if at - now <= wait:
                connection.execute(_BOOK, facts | {"at": at})
            return at - now

        return await self._link.write(turn)


class SqliteBoard:
    """The board of one file; see ``celeriac.contracts.board.Board``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        link.require(BOARD)
        self.sets = SqliteSets(link, clock)
        self.marks = SqliteMarks(link, clock)
        self.leases = SqliteLeases(link, clock)
        self.slots = SqliteSlots(link, clock)
        self.windows = SqliteWindows(link, clock)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self.marks.drain()
        await self.slots.drain()


def advance_slot(connection: sqlite3.Connection, entry: str, slot: float, now: float) -> bool:
    """Set the last slot of an entry, unless it has this one or a later one; return whether it was set."""
    _drop_ended(connection, "celeriac_slot", now)
    facts = {"entry": entry, "slot": slot, "ahead": now + SLOT_AHEAD, "expires": now + SLOT_KEPT}
    return connection.execute(_ADVANCE_SLOT, facts).rowcount == 1


def take_down(connection: sqlite3.Connection, marks: Sequence[Mark], now: float) -> None:
    """Remove marks that have these values, within the transaction of the caller."""
    connection.executemany(_TAKE_DOWN, [{**msgspec.structs.asdict(mark), "now": now} for mark in marks])


def read_revision(connection: sqlite3.Connection, name: str = REVOKED) -> int:
    """Return the number of the last change of the sets of one name."""
    return int(scalar(connection, _REVISION, {"name": name}) or 0)


def _drop_ended(connection: sqlite3.Connection, table: str, now: float) -> None:
    for statement in _OVER:
        connection.execute(statement.format(table), {"now": now})
