"""The board of one database, in tables of its own.

Rules: the server's clock counts. Each call is one statement, or one transaction; a write first deletes the expired rows
of its table. What must not happen twice at once is done under a lock of the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

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
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.link import PostgresLink

_BATCH = 500
"""Marks that are written in one transaction."""

NOW = "date_part('epoch', clock_timestamp())"

_OVER = "DELETE FROM {} WHERE expires <= " + NOW

_ADD = f"""
    INSERT INTO celeriac_member (name, kind, member, expires)
    SELECT $1, kind, member, {NOW} + $4 FROM unnest($2::text[], $3::text[]) AS given (kind, member)
    ON CONFLICT (name, kind, member) DO UPDATE SET expires = greatest(celeriac_member.expires, excluded.expires)"""
_REMOVE = """
    DELETE FROM celeriac_member USING unnest($2::text[], $3::text[]) AS given (kind, member)
    WHERE celeriac_member.name = $1 AND celeriac_member.kind = given.kind
      AND celeriac_member.member = given.member"""
# The row that counts changes is locked first: changes of one name come one after the other.
_ADVANCE = """
    INSERT INTO celeriac_revision (name, number) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET number = 1 +
        CASE WHEN celeriac_revision.number BETWEEN 0 AND 9007199254740991 THEN celeriac_revision.number ELSE 0 END"""
_LOAD = f"""
    SELECT kind, member, expires, coalesce((SELECT number FROM celeriac_revision WHERE name = $1), 0) AS revision,
           {NOW} AS now
    FROM (SELECT NULL AS kind, NULL AS member, 0.0::float8 AS expires
          UNION ALL
          SELECT kind, member, expires FROM celeriac_member
          WHERE name = $1 AND kind = ANY($2::text[]) AND expires > {NOW}) AS found"""
REVISION = "SELECT coalesce((SELECT number FROM celeriac_revision WHERE name = $1), 0)"

_KEYS_OVER = f"DELETE FROM celeriac_mark WHERE expires <= {NOW}"
_LOCK_KEYS = """
    SELECT pg_advisory_xact_lock(hashtext('celeriac mark'), number) FROM (
        SELECT DISTINCT hashtext(key) AS number FROM unnest($1::text[]) AS given (key) ORDER BY 1) AS numbers"""
_PUT = f"""
    INSERT INTO celeriac_mark (key, name, value, expires)
    VALUES ($1, $2, $3, coalesce((SELECT min(expires) FROM celeriac_mark WHERE key = $1), {NOW} + $4))
    ON CONFLICT (key, name) DO UPDATE SET value = celeriac_mark.value
    RETURNING value"""
_TAKE_DOWN = (
    f"DELETE FROM celeriac_mark WHERE key = $1 AND name = $2 AND value = $3 AND expires > {NOW} RETURNING 1"
)
# A key without marks keeps its expiry under the name of a mark that no caller puts.
_NO_NAME = "\x01"
_SHORTEN = f"""
    INSERT INTO celeriac_mark (key, name, value, expires) VALUES ($1, $2, '', {NOW} + $3)
    ON CONFLICT (key, name) DO NOTHING"""
_SHORTEN_ALL = f"UPDATE celeriac_mark SET expires = least(expires, {NOW} + $2) WHERE key = $1"

_HOLD = f"""
    WITH held AS (
        INSERT INTO celeriac_lease AS lease (name, holder, expires) VALUES ($1, $2, {NOW} + $3)
        ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires
        WHERE lease.holder = excluded.holder OR lease.expires <= {NOW} OR lease.expires > {NOW} + {LEASE_AHEAD}
        RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM held) AS held, {NOW} AS now"""
_RELEASE = "DELETE FROM celeriac_lease WHERE name = $1 AND holder = $2"

# A last slot that is too far ahead is none of ours.
_ADVANCE_SLOT = f"""
    INSERT INTO celeriac_slot AS slot (entry, last, expires) VALUES ($1, $2, {NOW} + {SLOT_KEPT})
    ON CONFLICT (entry) DO UPDATE SET last = excluded.last, expires = excluded.expires
    WHERE slot.last < excluded.last OR slot.last >= {NOW} + {SLOT_AHEAD}
    RETURNING 1"""
_LAST_SLOTS = f"""
    SELECT entry, last FROM celeriac_slot WHERE entry = ANY($1::text[]) AND last < {NOW} + {SLOT_AHEAD}"""

_LOCK_WINDOW = "SELECT pg_advisory_xact_lock(hashtext('celeriac turn'), hashtext($1))"
_NEXT_TURN = f"""
    SELECT {NOW} AS now,
           (SELECT at FROM celeriac_turn WHERE name = $1 AND at <= {NOW} + $4 ORDER BY at DESC LIMIT 1) AS last,
           (SELECT at + $3 FROM celeriac_turn WHERE name = $1 AND at <= {NOW} + $4
            ORDER BY at DESC LIMIT 1 OFFSET $2 - 1) AS room"""
_BOOK = "INSERT INTO celeriac_turn (name, at, expires) VALUES ($1, $2::float8, $2::float8 + $3::float8)"


class PostgresSets:
    """See ``celeriac.contracts.board.Sets``."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        await self._change(name, members, _ADD, keep)

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        await self._change(name, members, _REMOVE)

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        found: dict[str, dict[str, float]] = {kind: {} for kind in sets}
        rows = await self._link.fetch(_LOAD, name, list(sets))
        for kind, member, expires, _, _ in rows:
            if kind is not None:
                found[kind][member] = expires
        return Contents(rows[0]["revision"], found, rows[0]["now"])

    async def revision(self, name: str) -> int:
        return int(await self._link.value(REVISION, name))

    async def _change(
        self, name: str, members: Mapping[str, Collection[str]], statement: str, *more: float
    ) -> None:
        pairs = sorted({(kind, member) for kind, names in members.items() for member in names})
        kinds, names = [kind for kind, _ in pairs], [member for _, member in pairs]

        async def change(connection: Connection) -> None:
            await connection.execute(_ADVANCE, name)
            await connection.execute(_OVER.format("celeriac_member"))
            await connection.execute(statement, name, kinds, names, *more)

        await self._link.transact(change)


class _Mark(msgspec.Struct, frozen=True):
    key: str
    name: str
    value: str
    keep: float


class PostgresMarks:
    """See ``celeriac.contracts.board.Marks``."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link
        self._put: Coalescer[_Mark, str] = Coalescer(self._put_all, _BATCH)
        self._shorten: Coalescer[tuple[str, float], None] = Coalescer(self._shorten_all, _BATCH)

    async def put(self, key: str, name: str, value: str, keep: float) -> str:
        return await self._put(_Mark(key, name, value, keep))

    async def remove(self, key: str, name: str, value: str) -> bool:
        return bool(await self._link.value(_TAKE_DOWN, key, name, value))

    async def shorten(self, key: str, keep: float) -> None:
        await self._shorten((key, keep))

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._put.drain()
        await self._shorten.drain()

    async def _put_all(self, batch: Sequence[_Mark]) -> list[str]:
        async def put(connection: Connection) -> list[str]:
            await connection.execute(_LOCK_KEYS, [mark.key for mark in batch])
            await connection.execute(_KEYS_OVER)
            return [
                await connection.fetchval(_PUT, mark.key, mark.name, mark.value, mark.keep) for mark in batch
            ]

        return await self._link.transact(put)

    async def _shorten_all(self, batch: Sequence[tuple[str, float]]) -> list[None]:
        async def shorten(connection: Connection) -> None:
            await connection.execute(_LOCK_KEYS, [key for key, _ in batch])
            await connection.execute(_KEYS_OVER)
            await connection.executemany(_SHORTEN, [(key, _NO_NAME, keep) for key, keep in batch])
            await connection.executemany(_SHORTEN_ALL, batch)

        await self._link.transact(shorten)
        return [None] * len(batch)


class PostgresLeases:
    """See ``celeriac.contracts.board.Leases``."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        (row,) = await self._link.fetch(_HOLD, name, holder, seconds)
        return Tenure(row["held"], row["now"])

    async def release(self, name: str, holder: str) -> None:
        await self._link.fetch(_RELEASE, name, holder)


class PostgresSlots:
    """See ``celeriac.contracts.board.Slots``."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link
        self._advance: Coalescer[tuple[str, float], bool] = Coalescer(self._advance_all, _BATCH)

    async def advance(self, entry: str, slot: float) -> bool:
        return await self._advance((entry, slot))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return {row["entry"]: row["last"] for row in await self._link.fetch(_LAST_SLOTS, list(entries))}

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._advance.drain()

    async def _advance_all(self, batch: Sequence[tuple[str, float]]) -> list[bool]:
        return await self._link.transact(lambda connection: advance_slots(connection, batch))


async def take_down(connection: Connection, marks: Sequence[Mark]) -> None:
    """Remove marks that have these values, within the transaction of the caller."""
    if marks:
        await connection.execute(_LOCK_KEYS, [mark.key for mark in marks])
        await connection.executemany(_TAKE_DOWN, [(mark.key, mark.name, mark.value) for mark in marks])


async def advance_slots(connection: Connection, batch: Sequence[tuple[str, float]]) -> list[bool]:
    """Set the last slots of entries within the transaction of the caller; return of each whether it was set."""
    await connection.execute(_OVER.format("celeriac_slot"))
    answers = [False] * len(batch)
    # In one order, so that two who advance the same entries do not wait for each other.
    for place in sorted(range(len(batch)), key=batch.__getitem__):
        answers[place] = bool(await connection.fetchval(_ADVANCE_SLOT, *batch[place]))
    return answers


class PostgresWindows:
    """See ``celeriac.contracts.board.Windows``."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def turn(self, name: str, most: int, window: float, wait: float = 0.0) -> float:
        async def turn(connection: Connection) -> float:
            await connection.execute(_LOCK_WINDOW, name)
            await connection.execute(_OVER.format("celeriac_turn"))
            found: Any = await connection.fetchrow(_NEXT_TURN, name, most, window, LONGEST_WAIT)
            now: float = found["now"]
            at = max(now, found["last"] or now, found["room"] or now)
            if at - now <= wait:
                await connection.execute(_BOOK, name, at, window)
            return at - now

        return await self._link.transact(turn)


class PostgresBoard:
    """The board of one database; see ``celeriac.contracts.board.Board``.

    :param link: has the board's tables among those that it needs.
    """

    def __init__(self, link: PostgresLink) -> None:
        self.sets = PostgresSets(link)
        self.marks = PostgresMarks(link)
        self.leases = PostgresLeases(link)
        self.slots = PostgresSlots(link)
        self.windows = PostgresWindows(link)
        self._link = link

    async def revision(self, name: str = REVOKED) -> int:
        """Return the number of the last change of the sets of one name."""
        return await self.sets.revision(name)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self.marks.drain()
        await self.slots.drain()
