"""Counts all messages of a SQLite file in one reading transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from celeriac.contracts.broker import QueueState, Survey
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.frame import unpack

_PARKED = "SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL AND owner IS NULL"
_TAKEN = "SELECT count(*) FROM celeriac_message WHERE owner IS NOT NULL"
_DEAD = "SELECT count(*) FROM celeriac_dead"
_FAILED = "SELECT count(*) FROM celeriac_failed"
_WAITING = """
SELECT priority, count(*), min(id) FROM celeriac_message
    WHERE queue = ? AND owner IS NULL AND due_at IS NULL GROUP BY priority ORDER BY priority
"""
_FRAME = "SELECT frame FROM celeriac_message WHERE id = ?"


def survey(connection: sqlite3.Connection, queues: Sequence[str]) -> Survey:
    """Return how many messages there are, and the next of each priority."""
    states = [_state(connection, queue) for queue in queues]
    parked, taken, dead, failed = (
        int(scalar(connection, count)) for count in (_PARKED, _TAKEN, _DEAD, _FAILED)
    )
    return Survey(states, parked, taken, dead, failed)


def _state(connection: sqlite3.Connection, queue: str) -> QueueState:
    waiting = connection.execute(_WAITING, (queue,)).fetchall()
    frames = [connection.execute(_FRAME, (first,)).fetchone() for _, _, first in waiting]
    heads = [unpack(bytes(frame[0])) for frame in frames if frame is not None]
    return QueueState(queue, sum(count for _, count, _ in waiting), heads)
