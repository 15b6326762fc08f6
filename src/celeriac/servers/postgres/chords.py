"""Chords counted in two tables of celeriac's own, beside Celery's.

Rules: one transaction counts a part and notices that the chord is complete. It locks the chord's row first, and of
several chords in the order of their ids, so that two transactions cannot wait for each other. Only chords that celeriac
opened are counted, see ``servers/sqlite/chords.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import CHORD_KEPT, Claim, EncodedPart, Standing
from celeriac.servers.chord_parts import read_part
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.offload import in_thread
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.keys import storable_key
from celeriac.servers.postgres.link import PostgresLink
from celeriac.wire.content import Codecs
from celeriac.wire.result import encode_part, take_long

_CLAIM = 30.0
"""Seconds that a claim holds unless it is renewed."""

_DONE = 300.0
"""Seconds for which a chord is remembered as done."""

_BATCH = 500
_LAST = 1 << 62
"""The place of a part without one: after all others."""

_NOW = "extract(epoch FROM clock_timestamp())::float8"

_OPEN = f"""
    INSERT INTO celeriac_chord (id, size, touched)
    SELECT id, size, {_NOW} FROM unnest($1::text[], $2::integer[]) AS given (id, size) ORDER BY id
    ON CONFLICT (id) DO NOTHING"""
_LOCK = "SELECT id FROM celeriac_chord WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"
_FIND = f"""
    SELECT size, ended, joined, token,
           CASE WHEN claimed_until < {_NOW} + {2 * _CLAIM} THEN claimed_until - {_NOW} END AS left
    FROM celeriac_chord WHERE id = $1 AND NOT done FOR UPDATE"""
_PUT = """
    INSERT INTO celeriac_chord_part (chord_id, task_id, place, joins, part) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING RETURNING 1"""
# Whatever number is stored there, the statement does not fail.
_ENDED = f"UPDATE celeriac_chord SET ended = least(ended, 2147483646) + 1, touched = {_NOW} WHERE id = $1"
_JOIN = f"""
    WITH joining AS (
        INSERT INTO celeriac_chord_part (chord_id, task_id, place, joins)
        SELECT $1, unnest($2::text[]), 0, true ON CONFLICT DO NOTHING RETURNING 1)
    UPDATE celeriac_chord SET joined = least(joined + (SELECT count(*) FROM joining), 2147483647), touched = {_NOW}
    WHERE id = $1"""
_CLAIMED = f"UPDATE celeriac_chord SET token = $2, claimed_until = {_NOW} + $3 WHERE id = $1"
_PARTS = "SELECT part FROM celeriac_chord_part WHERE chord_id = $1 AND NOT joins ORDER BY place"
_FINISH = f"""
    WITH closed AS (
        UPDATE celeriac_chord SET done = true, touched = {_NOW} WHERE id = $1 AND token = $2 RETURNING id)
    DELETE FROM celeriac_chord_part WHERE chord_id IN (SELECT id FROM closed)"""
_DROP_OLD = f"""
    WITH dropped AS (
        DELETE FROM celeriac_chord WHERE touched < {_NOW} - $1 OR (done AND touched < {_NOW} - $2) RETURNING id)
    DELETE FROM celeriac_chord_part WHERE chord_id IN (SELECT id FROM dropped)"""


class PostgresChords:
    """See ``celeriac.contracts.backend.ChordStore``.

    :param expires: seconds for which results are kept, and a chord that makes no progress if that is longer than
        ``CHORD_KEPT``; ``None`` keeps both.
    """

    def __init__(self, link: PostgresLink, codecs: Codecs, serializer: str, expires: float | None) -> None:
        self._link = link
        self._codecs = codecs
        self._serializer = serializer
        self._kept = 1e12 if expires is None else max(expires, CHORD_KEPT)
        self._count: Coalescer[EncodedPart, Standing] = Coalescer(self._count_all, _BATCH)

    def encode(self, part: Part) -> EncodedPart:
        payload = encode_part(part.task_id, part.state, part.value, self._codecs, self._serializer)
        return EncodedPart(part, payload, uuid4().hex)

    async def open(self, openings: Sequence[Opening]) -> None:
        if openings:
            sizes = {storable_key(opening.chord_id): opening.size for opening in openings}
            await self._link.fetch(_OPEN, list(sizes), list(sizes.values()))
            await self._link.fetch(_DROP_OLD, self._kept, _DONE)

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        await self._link.fetch(_JOIN, storable_key(chord_id), sorted({storable_key(id) for id in task_ids}))

    async def count(self, encoded: EncodedPart) -> Standing:
        return await self._count(encoded)

    async def collect(self, claim: Claim) -> list[Any]:
        found = await self._link.fetch(_PARTS, storable_key(claim.chord_id))
        rows = [row["part"] or b"" for row in found]
        if take_long(rows, self._codecs):
            return await in_thread(lambda: [read_part(raw, self._codecs, self._serializer) for raw in rows])
        return [read_part(raw, self._codecs, self._serializer) for raw in rows]

    async def renew(self, claim: Claim) -> bool:
        chord_id = storable_key(claim.chord_id)

        async def renew(connection: Connection) -> bool:
            known = await connection.fetchrow(_FIND, chord_id)
            if known is None or (known["token"] != claim.token and (known["left"] or 0.0) > 0):
                return False
            await connection.execute(_CLAIMED, chord_id, claim.token, _CLAIM)
            return True

        return await self._link.transact(renew)

    async def finish(self, claim: Claim) -> None:
        await self._link.fetch(_FINISH, storable_key(claim.chord_id), claim.token)

    async def drain(self) -> None:
        """Return when all parts that were handed in are counted."""
        await self._count.drain()

    async def _count_all(self, batch: Sequence[EncodedPart]) -> list[Standing]:
        return await self._link.transact(lambda connection: count_in(connection, batch))


async def count_in(connection: Connection, batch: Sequence[EncodedPart]) -> list[Standing]:
    """Count parts within the transaction of the caller."""
    await connection.fetch(_LOCK, sorted({storable_key(encoded.part.chord_id) for encoded in batch}))
    return [await _count_one(connection, encoded) for encoded in batch]


async def _count_one(connection: Connection, encoded: EncodedPart) -> Standing:
    part = encoded.part
    chord_id, task_id = storable_key(part.chord_id), storable_key(part.task_id)
    known = await connection.fetchrow(_FIND, chord_id)
    if known is None:
        return Standing()
    ended = known["ended"]
    place = _LAST if part.index is None else part.index
    if await connection.fetchval(_PUT, chord_id, task_id, place, False, encoded.payload):
        ended += 1
        await connection.execute(_ENDED, chord_id)
    if ended != known["size"] + known["joined"]:
        return Standing()
    held_for = known["left"] or 0.0
    if known["token"] not in (None, encoded.token) and held_for > 0:
        return Standing(held_for=held_for)
    await connection.execute(_CLAIMED, chord_id, encoded.token, _CLAIM)
    return Standing(claim=Claim(part.chord_id, encoded.token))
