"""Rows of results as they are written to a SQLite file and read from it, within the transaction of the caller.

Rules: a stored SUCCESS is never overwritten by another state. The rows of a batch go in as one joined blob beside a
JSON list of facts: each step of a statement gives the interpreter lock away, so a batch takes one step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.servers.result_rows import MOST_COUNTED, EncodedRow, Row
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.result import READY_STATES, writable_text

_IDS = 5000
"""Ids that one statement looks up."""

_CLEANUPS = 24.0
"""How often, within the life of a result, expired rows are deleted."""

_STORE = """
    INSERT INTO celery_taskmeta (task_id, status, date_done, traceback, name, worker, retries, queue,
                                 result, children, args, kwargs, stamps)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
           json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
           json_extract(value, '$[6]'), json_extract(value, '$[7]'),
           substr(:blobs, json_extract(value, '$[8]'), json_extract(value, '$[9]')),
           substr(:blobs, json_extract(value, '$[10]'), json_extract(value, '$[11]')),
           substr(:blobs, json_extract(value, '$[12]'), json_extract(value, '$[13]')),
           substr(:blobs, json_extract(value, '$[14]'), json_extract(value, '$[15]')),
           substr(:blobs, json_extract(value, '$[16]'), json_extract(value, '$[17]'))
    FROM json_each(:facts) WHERE true
    ON CONFLICT (task_id) DO UPDATE SET
        status = excluded.status, date_done = excluded.date_done, traceback = excluded.traceback,
        name = excluded.name, worker = excluded.worker, retries = excluded.retries, queue = excluded.queue,
        result = excluded.result, children = excluded.children, args = excluded.args, kwargs = excluded.kwargs,
        stamps = excluded.stamps
    WHERE status <> 'SUCCESS' OR excluded.status = 'SUCCESS'"""
_LOAD = """
    SELECT task_id, status, date_done, traceback, name, worker, retries, queue,
           result, children, args, kwargs, stamps
    FROM celery_taskmeta WHERE task_id IN (SELECT value FROM json_each(:ids))"""
_FORGET = "DELETE FROM celery_taskmeta WHERE task_id IN (SELECT value FROM json_each(:ids))"
_DELETE_OLD_RESULTS = "DELETE FROM celery_taskmeta WHERE date_done < :limit"
_DELETE_OLD_GROUPS = "DELETE FROM celery_tasksetmeta WHERE date_done < :limit"
_COUNT = f"SELECT count(*) FROM (SELECT 1 FROM celery_taskmeta LIMIT {MOST_COUNTED + 1})"  # noqa: S608 - a number


_DATE = len("2026-01-31 12:00:00.000000")

_as_json = msgspec.json.Encoder().encode


class ResultRows:
    """What one process does with the results of a file; it runs in the transaction of its caller.

    :param expires: seconds for which a result is kept; ``None`` keeps it.
    """

    def __init__(self, clock: Clock, expires: float | None) -> None:
        self._clock = clock
        self._expires = expires
        self._next_cleanup = 0.0

    def write(self, connection: sqlite3.Connection, rows: Sequence[EncodedRow]) -> None:
        """Write the rows, in order; delete expired ones now and then."""
        connection.execute(_STORE, self._facts_and_blobs(rows))
        now = self._clock.now()
        if self._expires is not None and now >= self._next_cleanup:
            self._next_cleanup = now + self._expires / _CLEANUPS
            limit = _as_date(datetime.fromtimestamp(now - self._expires, UTC))
            connection.execute(_DELETE_OLD_RESULTS, {"limit": limit})
            connection.execute(_DELETE_OLD_GROUPS, {"limit": limit})

    def read(self, connection: sqlite3.Connection, task_ids: Sequence[str]) -> dict[str, Row]:
        """Return the rows that are there, by task id."""
        rows: dict[str, Row] = {}
        for start in range(0, len(task_ids), _IDS):
            ids = _json(task_ids[start : start + _IDS])
            rows.update((row[0], Row(*row)) for row in connection.execute(_LOAD, {"ids": ids}).fetchall())
        return rows

    def forget(self, connection: sqlite3.Connection, task_ids: Sequence[str]) -> None:
        """Delete the rows of these tasks."""
        connection.execute(_FORGET, {"ids": _json(list(task_ids))})

    def count(self, connection: sqlite3.Connection) -> int:
        """Count the rows, ``MOST_COUNTED`` and one at the most."""
        return int(scalar(connection, _COUNT))

    def _facts_and_blobs(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        blobs: list[bytes] = []
        start = 1
        facts: list[list[Any]] = []
        for row in rows:
            record = row.record
            done = None
            if record.status in READY_STATES:
                done = _as_date(record.date_done or datetime.fromtimestamp(self._clock.now(), UTC))
            fact: list[Any] = [record.task_id, record.status, done, _text(record.traceback)]
            fact += [_text(record.name), _text(record.worker), record.retries, _text(record.queue)]
            for blob in (row.payload, *row.others):
                if blob is None:
                    fact += [None, None]
                else:
                    fact += [start, len(blob)]
                    blobs.append(blob)
                    start += len(blob)
            facts.append(fact)
        return {"facts": _json(facts), "blobs": b"".join(blobs)}


def _json(value: object) -> str:
    return _as_json(value).decode()


def _text(value: str | None) -> str | None:
    return None if value is None else writable_text(value)


def _as_date(moment: datetime) -> str:
    """Write a time as Celery's ``DateTime`` column does where its timezone is UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:_DATE]
