"""Results as rows of Celery's own table: what a row means, whatever the database.

Rules: pickled objects are never made unless pickle is accepted. Sources: Celery, Database Result Backends; what Celery
5.7 and older versions write there.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.contracts.backend import EncodedResult
from celeriac.wire.content import PICKLE, Codecs
from celeriac.wire.failure import read_failure
from celeriac.wire.plain_pickle import read_plain_pickle
from celeriac.wire.preview import counted
from celeriac.wire.result import (
    EXCEPTION_STATES,
    ResultRecord,
    decode_value,
    encode_lossy,
    encode_value,
    is_pickle,
)

MOST_COUNTED = 10_000
"""Results that are counted to say how many there are: to count millions takes a database seconds."""


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
    date_done: str | datetime | None
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
            value = read_plain_pickle(row.result or b"")  # Celery 4 pickled the dictionary of a failure
            return (read_failure(value) or value) if row.status in EXCEPTION_STATES else value
        return decode_value(row.result, row.status, self._codecs, self._serializer)

    def _decoded(self, raw: bytes | None) -> Any:
        if raw is None:
            return None
        if self._is_refused_pickle(raw):
            return read_plain_pickle(raw)
        return decode_value(raw, "", self._codecs, self._serializer)

    def _is_refused_pickle(self, raw: bytes | None) -> bool:
        return raw is not None and is_pickle(raw) and not self._codecs.accepts(PICKLE)


def _stamps(record: ResultRecord) -> dict[str, Any] | None:
    return {"stamped_headers": list(record.stamps), "stamps": record.stamps} if record.stamps else None


def _from_date(done: str | datetime | None) -> datetime | None:
    return datetime.fromisoformat(done).replace(tzinfo=UTC) if isinstance(done, str) else done


def results_there(count: int) -> str:
    """Return in words how many results there are, of which ``MOST_COUNTED`` and one were counted at the most."""
    return f"more than {MOST_COUNTED} results" if count > MOST_COUNTED else counted(count, "result")
