"""Endings that land in one transaction: the results, the parts of chords, what follows, and the message.

Rules: nothing is done for a message that is no longer held. An ending without parts or a mark goes with others in one
statement. If a part gives a claim, or finds one held, the follow-ups and the settlement of its decision wait for a
second landing. Endings of a worker that is behind wait some milliseconds for others, since each transaction costs the
server as much as many endings. If the server refuses a batch, each decision is landed alone, so that only the faulty
one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from celeriac.contracts.backend import Standing
from celeriac.contracts.server import Landing
from celeriac.errors import DeliveryLost
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.board import NOW, take_down
from celeriac.servers.postgres.chords import count_in
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.result_rows import NAMES, STORE, TELL, UPSERT, columns_of, one_for_each
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.sleeping import WAKE
from celeriac.servers.queue_rows import BATCH_BYTES, Settlement, lost_delivery
from celeriac.servers.row_settlements import Ending, answers_of, done_of, land, unless_open

_BATCH = 500
"""Endings that share one transaction."""

_CROWD = 128
"""So many endings are worth a transaction of their own: then they wait for no more."""

_WEIGHT = attrgetter("weight")

# The arrays of the results, with the message that each belongs to, come after the messages to settle and their owner.
_RESULTS = """unnest($3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::boolean[], $8::timestamptz[], $9::text[],
    $10::bytea[], $11::text[], $12::bytea[], $13::bytea[], $14::text[], $15::integer[], $16::text[], $17::bytea[])"""
# What was settled is an array and no join, whose plan would be another one for each number of rows that it expects.
_GONE = "message = ANY(ARRAY(SELECT id FROM gone))"
_STORED = f"""
    stored AS ({
    UPSERT.format(rows=f"{_RESULTS} AS given (message, {NAMES}) WHERE {_GONE} ORDER BY task_id")
})"""
_FOLLOW_UPS = f"""
    following AS MATERIALIZED (
        SELECT * FROM unnest($18::bigint[], $19::text[], $20::smallint[], $21::float8[], $22::bytea[])
            AS given (message, queue, priority, due_at, frame) WHERE {_GONE}),
    added AS (
        INSERT INTO celeriac_message (queue, priority, due_at, frame)
        SELECT queue, priority, CASE WHEN due_at > {NOW} THEN due_at END, frame FROM following),
    known AS (
        INSERT INTO celeriac_queue (name) SELECT unnest($23::text[]) ON CONFLICT DO NOTHING)"""
_WOKEN = f"""
    UNION ALL SELECT NULL FROM ({
    WAKE.format(queues=f"(SELECT queue FROM following WHERE due_at IS NULL OR due_at < {NOW} + {sql.SOON})")
}) AS woken"""
# The messages of failed tasks are kept.
_FAILED = f"""
    failing AS (
        INSERT INTO celeriac_failed (task, queue, priority, reason, died_at, frame)
        SELECT task, queue, priority, reason, {NOW}, frame FROM gone
        JOIN unnest($24::bigint[], $25::text[], $26::text[]) AS given (message, task, reason) ON gone.id = given.message
        ORDER BY gone.id),
    trimmed AS ({sql.TRIM_FAILED.format(most="$27", seconds="$28", new="cardinality($24)")})"""


def _landing(steps: Sequence[str], gone: str = sql.ACK, woken: str = "") -> str:
    """Return the statement that settles messages and does these steps for what was held."""
    told = TELL.format(ids="$4::text[]")
    return (
        f"WITH gone AS ({gone}),{','.join(steps)}"
        f" SELECT id FROM gone UNION ALL SELECT NULL FROM ({told}) AS told{woken}"
    )


_LAND = _landing([_STORED])
_LAND_AND_FOLLOW = _landing([_STORED, _FOLLOW_UPS], woken=_WOKEN)
_LAND_FAILED = _landing([_STORED, _FOLLOW_UPS, _FAILED], f"{sql.ACK}, queue, priority, frame", _WOKEN)


class PostgresSettlements:
    """See ``celeriac.contracts.server.Settlements``.

    :param results: keeps its tables in the same schema.
    :param is_behind: whether messages are held that wait for a slot: each ending is then soon followed by others.
    """

    limit = BATCH_BYTES

    def __init__(self, queues: Queues, results: PostgresBackend, is_behind: Callable[[], bool]) -> None:
        self._queues = queues
        self._link = queues.link.needing("results")
        self.results = results
        self._land_plain: Coalescer[Ending, Sequence[Standing]] = Coalescer(
            self._land_plain_ones, _BATCH, _WEIGHT, is_behind=is_behind, crowd=_CROWD
        )
        self._land_any: Coalescer[Ending, Sequence[Standing]] = Coalescer(self._land_all, _BATCH, _WEIGHT)

    async def land(self, landing: Landing) -> Sequence[Standing]:
        rows = [self.results.checked(result) for result in landing.results]
        messages = new_messages(landing.messages) if landing.messages else ()
        plain = not (landing.parts or landing.held or landing.buried is not None or landing.mark is not None)
        return await land(landing, rows, messages, self._land_plain if plain else self._land_any)

    async def drain(self) -> None:
        """Return when everything asked for so far was answered."""
        await self._land_plain.drain()
        await self._land_any.drain()

    async def _land_plain_ones(
        self, endings: Sequence[Ending]
    ) -> Sequence[Sequence[Standing] | DeliveryLost]:
        pairs = [(ending.settlement.id, row) for ending in endings for row in ending.rows]
        settlements = [ending.settlement for ending in endings]
        owners = {one.owner for one in settlements}
        if len(owners) > 1 or len({row.record.task_id for _, row in pairs}) < len(pairs):
            return await self._land_all(endings)
        values: list[Any] = [[one.id for one in settlements], owners.pop()]
        values += [[id for id, _ in pairs], *columns_of([row for _, row in pairs])]
        follow_ups = [(ending.settlement.id, message) for ending in endings for message in ending.messages]
        queues = {message.queue for _, message in follow_ups}
        failed = [one for one in settlements if one.verb == "fail"]
        statement = _LAND
        if follow_ups or failed:
            statement = _LAND_AND_FOLLOW
            columns = sql.columns_of([one for _, one in follow_ups], self._queues.waking.unknown(queues))
            values += [[id for id, _ in follow_ups], *columns[: sql.WITH_QUEUES]]
        if failed:
            statement = _LAND_FAILED
            cap = self._queues.cap
            values += [[one.id for one in failed], *sql.failed_columns(failed), cap.most, cap.seconds]
        found = await self._link.fetch(statement, *values, keeps_plan=not failed)
        gone = {row["id"] for row in found}
        self._landed(settlements, queues)
        return [() if one.id in gone else lost_delivery(one) for one in settlements]

    async def _land_all(self, endings: Sequence[Ending]) -> Sequence[Sequence[Standing] | DeliveryLost]:
        answers = await self._link.transact(lambda connection: self._land_each(connection, endings))
        queues = {message.queue for ending in endings for message in ending.messages}
        over = [
            ending.settlement
            for ending, answer in zip(endings, answers, strict=True)
            if isinstance(answer, DeliveryLost) or not (answer or ending.waits)
        ]
        self._landed(over, queues)
        return answers

    def _landed(self, over: Collection[Settlement], queues: set[str]) -> None:
        self._queues.housekeeping.settled(len(over))
        self._queues.strays.let_go(over)
        self._queues.waking.published(queues)
        self.results.stored()

    # --- in a transaction ----------------------------------------------------------------------------------

    async def _land_each(
        self, connection: Connection, endings: Sequence[Ending]
    ) -> list[Sequence[Standing] | DeliveryLost]:
        ids: set[int] = set()
        for group in sql.by_owner(_acked(ending) for ending in endings):
            rows = await connection.fetch(sql.HELD, *sql.held_columns(group, self._queues.cap))
            ids.update(row["id"] for row in rows)
        valid = [ending for ending in endings if ending.settlement.id in ids]
        results = one_for_each([row for ending in valid for row in ending.rows])
        if results:
            await connection.fetch(STORE, *columns_of(results))
        standings = await _count(connection, valid)
        done = done_of(valid, standings)
        messages = list(chain.from_iterable(ending.messages for ending in done))
        if messages:
            queues = {message.queue for message in messages}
            await connection.fetch(sql.ADD, *sql.columns_of(messages, queues))
        for group in sql.by_owner(ending.settlement for ending in done):
            await connection.fetch(sql.SETTLE[group[0].verb], *sql.held_columns(group, self._queues.cap))
        await take_down(connection, [ending.settlement.mark for ending in done if ending.settlement.mark])
        return answers_of(endings, valid, standings)


async def _count(connection: Connection, endings: Sequence[Ending]) -> list[Sequence[Standing]]:
    """Return how the chords of each stand, nothing where all of them are open or done."""
    parts = [part for ending in endings for part in ending.parts]
    counted = iter(await count_in(connection, parts) if parts else ())
    return [unless_open([next(counted) for _ in ending.parts]) for ending in endings]


def _acked(ending: Ending) -> Settlement:
    return msgspec.structs.replace(ending.settlement, verb="ack", detail=None)
