"""Counts all messages of a PostgreSQL broker in three statements."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.contracts.broker import QueueState, Survey
from celeriac.servers.postgres.link import PostgresLink
from celeriac.wire.frame import unpack

_WAITING = """
    SELECT queue, count(*) AS waiting, min(id) AS first FROM celeriac_message
    WHERE queue = ANY($1::text[]) AND owner IS NULL AND due_at IS NULL
    GROUP BY queue, priority ORDER BY queue, priority"""
_FRAMES = "SELECT id, frame FROM celeriac_message WHERE id = ANY($1::bigint[])"
_TOTALS = """
    SELECT (SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL AND owner IS NULL) AS parked,
        (SELECT count(*) FROM celeriac_message WHERE owner IS NOT NULL) AS taken,
        (SELECT count(*) FROM celeriac_dead) AS dead,
        (SELECT count(*) FROM celeriac_failed) AS failed"""


async def survey(link: PostgresLink, queues: Sequence[str]) -> Survey:
    """Return how many messages there are, and the next of each priority. Raises ``BrokerError`` as every call."""
    lines = await link.fetch(_WAITING, list(queues))
    frames = {row["id"]: row["frame"] for row in await link.fetch(_FRAMES, [line["first"] for line in lines])}
    (totals,) = await link.fetch(_TOTALS)
    states = []
    for queue in queues:
        own = [line for line in lines if line["queue"] == queue]
        heads = [unpack(bytes(frames[line["first"]])) for line in own if line["first"] in frames]
        states.append(QueueState(queue, sum(line["waiting"] for line in own), heads))
    return Survey(states, totals["parked"], totals["taken"], totals["dead"], totals["failed"])
