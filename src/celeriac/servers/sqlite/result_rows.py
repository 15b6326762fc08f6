"""Rows of results as they are written to a SQLite file and read from it, within the transaction of the caller.

Rules: a stored SUCCESS is never overwritten by another state. Up to ``_SHARES[0]`` rows go in by one statement: each
step of a statement gives the interpreter lock away, which a busy event loop keeps for milliseconds.
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

_COLUMNS = (
    "task_id", "status", "date_done", "traceback", "name", "worker", "retries", "queue",
    "result", "children", "args", "kwargs", "stamps",
)  # fmt: skip
_SHARES = (64, 16, 4, 1)
"""How many rows one statement writes; few numbers, since SQLite reads the text of each anew."""

_LARGEST = 2**63 - 1


def _storing(count: int) -> str:
    row = f"({', '.join('?' * len(_COLUMNS))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    return f"""
    INSERT INTO celery_taskmeta ({", ".join(_COLUMNS)}) VALUES {", ".join([row] * count)}
    ON CONFLICT (task_id) DO UPDATE SET {changes}
    WHERE status <> 'SUCCESS' OR excluded.status = 'SUCCESS'"""  # noqa: S608 - of names above


_STORE = {count: _storing(count) for count in _SHARES}
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
        start = 0
        for count in _SHARES:
            while len(rows) - start >= count:
                values = [value for row in rows[start : start + count] for value in self._values(row)]
                connection.execute(_STORE[count], values)
                start += count
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

    def _values(self, row: EncodedRow) -> tuple[Any, ...]:
        record = row.record
        done = None
        if record.status in READY_STATES:
            done = _as_date(record.date_done or datetime.fromtimestamp(self._clock.now(), UTC))
        return (
            record.task_id,
            record.status,
            done,
            _text(record.traceback),
            _text(record.name),
            _text(record.worker),
            _number(record.retries),
            _text(record.queue),
            row.payload,
            *row.others,
        )


def _number(value: int | None) -> int | float | None:
    """Return a number that SQLite has: a message may have been retried any number of times, as it says."""
    return value if value is None or abs(value) <= _LARGEST else float(value)


def _json(value: object) -> str:
    return _as_json(value).decode()


def _text(value: str | None) -> str | None:
    return None if value is None else writable_text(value)


def _as_date(moment: datetime) -> str:
    """Write a time as Celery's ``DateTime`` column does where its timezone is UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:_DATE]
