"""Chords counted in two tables of celeriac's own, beside Celery's.

Rules: one transaction counts a part and notices that the chord is complete. Only chords that celeriac opened are
counted: Celery has no counters in a database, and sends ``celery.chord_unlock`` with each chord, a task that looks
again and again until the header is ready.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.clock import Clock
from celeriac.contracts.backend import CHORD_KEPT, Claim, EncodedPart, Standing
from celeriac.quantities import is_number
from celeriac.servers.chord_parts import read_part
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.offload import in_thread
from celeriac.servers.sqlite.link import SqliteLink
from celeriac.servers.sqlite.reading import column
from celeriac.wire.content import Codecs
from celeriac.wire.result import encode_part, take_long

_CLAIM = 30.0
"""Seconds that a claim holds unless it is renewed."""

_DONE = 300.0
"""Seconds for which a chord is remembered as done."""

_BATCH = 500
_LAST = 1 << 62
"""The place of a part without one: after all others."""

_FIND = "SELECT size, ended, joined, token, claimed_until FROM celeriac_chord WHERE id = :id AND NOT done"
_OPEN = """
    INSERT INTO celeriac_chord (id, size, ended, joined, done, touched) VALUES (:id, :size, 0, 0, 0, :now)
    ON CONFLICT (id) DO NOTHING"""
_PUT = """
    INSERT INTO celeriac_chord_part (chord_id, task_id, place, joins, part)
    VALUES (:id, :task_id, :place, :joins, :part) ON CONFLICT DO NOTHING"""
_ENDED = "UPDATE celeriac_chord SET ended = ended + :more, touched = :now WHERE id = :id"
_JOINED = "UPDATE celeriac_chord SET joined = joined + :more, touched = :now WHERE id = :id"
_CLAIMED = "UPDATE celeriac_chord SET token = :token, claimed_until = :until WHERE id = :id"
_PARTS = "SELECT part FROM celeriac_chord_part WHERE chord_id = :id AND NOT joins ORDER BY place"
_CLOSE = "UPDATE celeriac_chord SET done = 1, touched = :now WHERE id = :id AND token = :token"
_DROP_PARTS = "DELETE FROM celeriac_chord_part WHERE chord_id = :id"
_DROP_OLD = "DELETE FROM celeriac_chord WHERE touched < :limit OR (done AND touched < :done_limit)"
_DROP_OLD_PARTS = (
    "DELETE FROM celeriac_chord_part WHERE chord_id NOT IN (SELECT id FROM celeriac_chord WHERE NOT done)"
)


class SqlChords:
    """See ``celeriac.contracts.backend.ChordStore``.

    :param expires: seconds for which results are kept, and a chord that makes no progress if that is longer than
        ``CHORD_KEPT``; ``None`` keeps both.
    """

    def __init__(
        self, link: SqliteLink, codecs: Codecs, serializer: str, clock: Clock, expires: float | None
    ) -> None:
        self._link = link
        self._codecs = codecs
        self._serializer = serializer
        self._clock = clock
        self._expires = None if expires is None else max(expires, CHORD_KEPT)
        self._count: Coalescer[EncodedPart, Standing] = Coalescer(self._count_all, _BATCH)

    def encode(self, part: Part) -> EncodedPart:
        payload = encode_part(part.task_id, part.state, part.value, self._codecs, self._serializer)
        return EncodedPart(part, payload, uuid4().hex)

    async def open(self, openings: Sequence[Opening]) -> None:
        now = self._clock.now()
        rows = [{"id": opening.chord_id, "size": opening.size, "now": now} for opening in openings]
        if rows:
            await self._link.write(partial(self._insert, rows=rows))

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        await self._link.write(partial(self._join, chord_id=chord_id, task_ids=task_ids))

    async def count(self, encoded: EncodedPart) -> Standing:
        return await self._count(encoded)

    async def collect(self, claim: Claim) -> list[Any]:
        found = await self._link.read(lambda connection: column(connection, _PARTS, {"id": claim.chord_id}))
        rows = [raw if isinstance(raw, bytes) else b"" for raw in found]
        if take_long(rows, self._codecs):
            return await in_thread(lambda: [read_part(raw, self._codecs, self._serializer) for raw in rows])
        return [read_part(raw, self._codecs, self._serializer) for raw in rows]

    async def renew(self, claim: Claim) -> bool:
        return await self._link.write(partial(self._renew, claim=claim))

    async def finish(self, claim: Claim) -> None:
        await self._link.write(partial(self._finish, claim=claim))

    async def drain(self) -> None:
        """Return when all parts that were handed in are counted."""
        await self._count.drain()

    # --- in the file's thread ------------------------------------------------------------------------------

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.executemany(_OPEN, rows)
        now = self._clock.now()
        limit = now - self._expires if self._expires is not None else 0.0
        if connection.execute(_DROP_OLD, {"limit": limit, "done_limit": now - _DONE}).rowcount:
            connection.execute(_DROP_OLD_PARTS)

    def _join(self, connection: sqlite3.Connection, chord_id: str, task_ids: Sequence[str]) -> None:
        new = sum(_put(connection, chord_id, task_id, 0, joins=1) for task_id in task_ids)
        connection.execute(_JOINED, {"id": chord_id, "more": new, "now": self._clock.now()})

    async def _count_all(self, batch: Sequence[EncodedPart]) -> list[Standing]:
        return await self._link.write(
            lambda connection: [self.count_in(connection, encoded) for encoded in batch]
        )

    def count_in(self, connection: sqlite3.Connection, encoded: EncodedPart) -> Standing:
        """Count a part within the transaction of the caller, in the file's thread."""
        part, now = encoded.part, self._clock.now()
        known = connection.execute(_FIND, {"id": part.chord_id}).fetchone()
        if known is None:
            return Standing()
        size, ended, joined = (number if type(number) is int else 0 for number in known[:3])
        token, held_for = known[3], _left(known[4], now)
        place = _LAST if part.index is None else part.index
        if _put(connection, part.chord_id, part.task_id, place, encoded.payload):
            ended += 1
            connection.execute(_ENDED, {"id": part.chord_id, "more": 1, "now": now})
        if ended != size + joined:
            return Standing()
        if token not in (None, encoded.token) and held_for > 0:
            return Standing(held_for=held_for)
        return Standing(claim=self._claimed(connection, Claim(part.chord_id, encoded.token)))

    def _renew(self, connection: sqlite3.Connection, claim: Claim) -> bool:
        known = connection.execute(_FIND, {"id": claim.chord_id}).fetchone()
        if known is None or (known[3] != claim.token and _left(known[4], self._clock.now()) > 0):
            return False
        self._claimed(connection, claim)
        return True

    def _claimed(self, connection: sqlite3.Connection, claim: Claim) -> Claim:
        until = self._clock.now() + _CLAIM
        connection.execute(_CLAIMED, {"id": claim.chord_id, "token": claim.token, "until": until})
        return claim

    def _finish(self, connection: sqlite3.Connection, claim: Claim) -> None:
        closing = {"id": claim.chord_id, "token": claim.token, "now": self._clock.now()}
        if connection.execute(_CLOSE, closing).rowcount:
            connection.execute(_DROP_PARTS, {"id": claim.chord_id})


def _left(claimed_until: Any, now: float) -> float:
    """Return for how many seconds a claim holds: 0 for a value that is no time, or lies too far ahead to be ours."""
    return claimed_until - now if is_number(claimed_until) and claimed_until < now + 2 * _CLAIM else 0.0


def _put(
    connection: sqlite3.Connection,
    chord_id: str,
    task_id: str,
    place: int,
    part: bytes | None = None,
    *,
    joins: int = 0,
) -> int:
    """Insert a row unless it is there; return 1 if it was not."""
    row = {"id": chord_id, "task_id": task_id, "place": place, "joins": joins, "part": part}
    return connection.execute(_PUT, row).rowcount
