"""Rows of Celery's table of results, as statements write and read them.

Rules: a stored SUCCESS is never overwritten by another state. Times without a zone are in the session's zone, as Celery
writes them: its clients send the server times with a zone, for a column that has none. A batch holds one row of a task,
the one that counts, and is in the order of the ids, so that two batches cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from celeriac.contracts.backend import check_text
from celeriac.errors import BackendError, EncodeError
from celeriac.servers.postgres.arrays import without_nulls
from celeriac.servers.postgres.sleeping import IS_CHANNEL
from celeriac.servers.result_rows import EncodedRow, Row
from celeriac.wire.names import is_text
from celeriac.wire.result import READY_STATES, SUCCESS, writable_text

_SHORT = 155
_SHORTEST = 50
"""Characters that Celery's columns have room for."""

_MOST = 2**31 - 1

COLUMNS = (
    "$1::text[], $2::text[], $3::bytea[], $4::boolean[], $5::timestamptz[], $6::text[], $7::bytea[], $8::text[],"
    " $9::bytea[], $10::bytea[], $11::text[], $12::integer[], $13::text[], $14::bytea[]"
)
"""The arrays of ``columns_of``, in their order."""

UPSERT = """
    INSERT INTO celery_taskmeta AS kept (id, task_id, status, result, date_done, traceback, children, name, args,
                                         kwargs, worker, retries, queue, stamps)
    SELECT nextval('task_id_sequence'), task_id, status, result,
           CASE WHEN ready THEN coalesce(done::timestamp, LOCALTIMESTAMP) END,
           traceback, children, name, args, kwargs, worker, retries, queue, stamps
    FROM {rows}
    ON CONFLICT (task_id) DO UPDATE SET
        status = excluded.status, result = excluded.result, date_done = excluded.date_done,
        traceback = excluded.traceback, children = excluded.children, name = excluded.name, args = excluded.args,
        kwargs = excluded.kwargs, worker = excluded.worker, retries = excluded.retries, queue = excluded.queue,
        stamps = excluded.stamps
    WHERE kept.status IS DISTINCT FROM 'SUCCESS' OR excluded.status = 'SUCCESS'"""
"""Writes rows; ``rows`` is where they come from, under the names of the columns."""

NAMES = "task_id, status, result, ready, done, traceback, children, name, args, kwargs, worker, retries, queue, stamps"

# A notification names the tasks, as far as it has room for them.
TELL = (
    """
    SELECT pg_notify(channel, CASE WHEN length(tasks) < 4000 AND octet_length(tasks) < 7900 THEN tasks ELSE '' END)
    FROM (SELECT channel, json_agg(task_id)::text AS tasks FROM celeriac_waiting
          WHERE task_id = ANY({ids}) AND """
    + IS_CHANNEL
    + """ GROUP BY channel) AS waiting"""
)

STORE = f"""
    WITH stored AS ({UPSERT.format(rows=f"unnest({COLUMNS}) AS given ({NAMES})")})
    {TELL.format(ids="$1::text[]")}"""

# A time that no Python has is none.
LOAD = """
    SELECT task_id, status,
           CASE WHEN date_done BETWEEN '0002-01-01' AND '9998-12-31' THEN date_done::timestamptz END AS date_done,
           traceback, name, worker, retries, queue, result, children, args, kwargs, stamps
    FROM celery_taskmeta WHERE task_id = ANY($1::text[])"""
FORGET = "DELETE FROM celery_taskmeta WHERE task_id = ANY($1::text[])"


def one_for_each(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """Return of the rows of each task the one that counts: a success, else the last; sorted by their ids."""
    kept: dict[str, EncodedRow] = {}
    for row in rows:
        record = row.record
        before = kept.get(record.task_id)
        if before is None or before.record.status != SUCCESS or record.status == SUCCESS:
            kept[record.task_id] = row
    return [kept[task_id] for task_id in sorted(kept)]


def columns_of(rows: Sequence[EncodedRow]) -> list[list[Any]]:
    """Return the rows as the arrays of a statement; one that would have nothing but NULL is empty."""
    columns: list[list[Any]] = [[] for _ in range(14)]
    for row in rows:
        record = row.record
        children, args, kwargs, stamps = row.others
        values = (
            record.task_id,
            record.status,
            row.payload,
            record.status in READY_STATES,
            record.date_done,
            None if record.traceback is None else writable_text(record.traceback),
            children,
            _short(record.name),
            args,
            kwargs,
            _short(record.worker),
            None if record.retries is None else min(max(record.retries, -_MOST), _MOST),
            _short(record.queue),
            stamps,
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return [without_nulls(column) for column in columns]


def check(row: EncodedRow) -> None:
    """Raise ``BackendError`` for what the table cannot keep."""
    task_id, status = row.record.task_id, row.record.status
    try:
        check_id(task_id)
    except EncodeError as error:
        raise BackendError(str(error)) from error
    if len(status) > _SHORTEST or not is_text(status) or "\0" in status:
        raise BackendError(f"state {status!r} is no text of at most {_SHORTEST} characters")


def check_id(task_id: str) -> None:
    """Raise ``EncodeError`` for an id under which no result can be kept."""
    check_text(task_id)
    if "\0" in task_id:
        raise EncodeError(
            f"task id {task_id!r} has a NUL, which PostgreSQL cannot keep; send the task under another id"
        )
    if len(task_id) > _SHORT:
        raise EncodeError(
            f"task id {task_id!r} has {len(task_id)} characters, and Celery's table of results has room for {_SHORT}; "
            "send the task under a shorter id, or with ignore_result"
        )


def storable_ids(task_ids: Collection[str]) -> list[str]:
    """Return the ids that may be in the table, each once."""
    kept = (task_id for task_id in task_ids if len(task_id) <= _SHORT and "\0" not in task_id)
    return sorted({task_id for task_id in kept if is_text(task_id)})


def read_row(found: Any) -> Row:
    """Return a row of ``LOAD``."""
    return Row(**dict(found.items()))


def _short(text: str | None) -> str | None:
    return None if text is None else writable_text(text)[:_SHORT]
