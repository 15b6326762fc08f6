"""Results as rows of Celery's own table: what is written and read within one transaction, and what a row means.

Rules: a stored SUCCESS is never overwritten by another state. The rows of a batch go in as one joined blob beside a
JSON list of facts: each step of a statement gives the interpreter lock away, so a batch takes one step. Pickled
objects are never made unless pickle is accepted. Sources: Celery, Database Result Backends; what Celery 5.7 and older
versions write there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.backend import EncodedResult
from celeriac.clock import Clock
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.content import PICKLE, Codecs
from celeriac.wire.plain_pickle import read_plain_pickle
from celeriac.wire.result import (
    READY_STATES,
    ResultRecord,
    decode_value,
    encode_lossy,
    encode_value,
    is_pickle,
    writable_text,
)

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
_COUNT = "SELECT count(*) FROM celery_taskmeta"


_DATE = len("2026-01-31 12:00:00.000000")

_as_json = msgspec.json.Encoder().encode


class EncodedRow(EncodedResult, frozen=True):
    """A row of ``celery_taskmeta``: ``payload`` is its ``result``, ``others`` are its further binary columns.

    :param size: bytes of all of them.
    """

    others: tuple[bytes | None, bytes | None, bytes | None, bytes | None]
    size: int


class Row(msgspec.Struct, frozen=True):
    """A row of ``celery_taskmeta`` as it was read."""

    task_id: str
    status: str
    date_done: str | None
    traceback: str | None
    name: str | None
    worker: str | None
    retries: int | None
    queue: str | None
    result: bytes | None
    children: bytes | None
    args: bytes | None
    kwargs: bytes | None
    stamps: bytes | None

    @property
    def blobs(self) -> list[bytes]:
        """The serialized columns."""
        every = self.result, self.children, self.args, self.kwargs, self.stamps
        return [blob for blob in every if blob is not None]

    @property
    def version(self) -> Hashable:
        """A value that changes whenever the row is written again."""
        return self.status, self.date_done, self.result, self.children


class RowCodec:
    """Turns records into rows, and rows into records.

    :param extended: keep the arguments and stamps of a task too.
    """

    def __init__(self, codecs: Codecs, serializer: str, extended: bool) -> None:
        self._codecs = codecs
        self._serializer = serializer
        self._extended = extended

    def encode(self, record: ResultRecord) -> EncodedRow:
        """Make the row. Raises ``EncodeError`` naming what cannot be written."""
        payload = encode_value(record, self._codecs, self._serializer)
        others = (
            self._encoded(record.children),
            self._encoded(record.args) if self._extended else None,
            self._encoded(record.kwargs) if self._extended else None,
            self._encoded(_stamps(record)) if self._extended else None,
        )
        return EncodedRow(record, payload, others, len(payload) + sum(map(len, filter(None, others))))

    def decode(self, row: Row) -> ResultRecord:
        """Read the row. Raises ``BackendError`` for what cannot be read."""
        stamps = self._decoded(row.stamps)
        return ResultRecord(
            task_id=row.task_id,
            status=row.status,
            result=self._result(row),
            traceback=row.traceback,
            children=self._decoded(row.children),
            date_done=_from_date(row.date_done),
            name=row.name,
            args=self._decoded(row.args),
            kwargs=self._decoded(row.kwargs),
            worker=row.worker,
            retries=row.retries,
            queue=row.queue,
            stamps=stamps.get("stamps") or {} if isinstance(stamps, dict) else {},
        )

    def _encoded(self, value: Any) -> bytes | None:
        return None if value is None else encode_lossy(value, self._codecs, self._serializer)

    def _result(self, row: Row) -> Any:
        if self._is_refused_pickle(row.result):
            return read_plain_pickle(row.result or b"")
        return decode_value(row.result, row.status, self._codecs, self._serializer)

    def _decoded(self, raw: bytes | None) -> Any:
        if raw is None:
            return None
        if self._is_refused_pickle(raw):
            return read_plain_pickle(raw)
        return decode_value(raw, "", self._codecs, self._serializer)

    def _is_refused_pickle(self, raw: bytes | None) -> bool:
        return raw is not None and is_pickle(raw) and not self._codecs.accepts(PICKLE)


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
        """Return the rows that are there, by the ids of their tasks."""
        rows: dict[str, Row] = {}
        for start in range(0, len(task_ids), _IDS):
            ids = _json(task_ids[start : start + _IDS])
            rows.update((row[0], Row(*row)) for row in connection.execute(_LOAD, {"ids": ids}).fetchall())
        return rows

    def forget(self, connection: sqlite3.Connection, task_ids: Sequence[str]) -> None:
        """Delete the rows of these tasks."""
        connection.execute(_FORGET, {"ids": _json(list(task_ids))})

    def count(self, connection: sqlite3.Connection) -> int:
        """Count the rows."""
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


def _stamps(record: ResultRecord) -> dict[str, Any] | None:
    return {"stamped_headers": list(record.stamps), "stamps": record.stamps} if record.stamps else None


def _as_date(moment: datetime) -> str:
    """Write a time as Celery's ``DateTime`` column does where its timezone is UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:_DATE]


def _from_date(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
