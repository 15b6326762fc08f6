"""The record of a task's state and value.

Rules: what is written is Celery's result meta, key for key; what is read may come from any writer (Celery 3.1 and
newer, gocelery, celery.node), so every field but the status is optional and of any type. The id is the reader's:
gocelery stores an empty one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.errors import MalformedMessage
from celeriac.wire.content import PICKLE, SERIALIZERS, Codecs
from celeriac.wire.extended_json import encode_json
from celeriac.wire.failure import Failure, read_failure
from celeriac.wire.names import MAKING_A_TASK

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
"""States that do not change any more."""

EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
"""States whose result is an exception."""

_COMPRESSED = b"\x00celery-compressed\x00"
_PICKLED = b"\x80"
_EMPTY_LIST = msgspec.Raw(b"[]")
_NULL = msgspec.Raw(b"null")


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a task's outcome (Celery: the result meta object).

    ``result`` is the value, or a ``Failure`` in an exception state, or the meta of a custom state. ``children`` holds
    Celery's result tuples. The fields from ``name`` on are written where results are extended; ``reply_to`` never is:
    it is where a backend that sends results sends this one to.
    """

    task_id: str
    status: str = PENDING
    result: Any = None
    traceback: str | None = None
    children: list[Any] | None = None
    date_done: datetime | None = None
    group_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    args: Any = None
    kwargs: Any = None
    worker: str | None = None
    retries: int | None = None
    queue: str | None = None
    stamps: dict[str, Any] = {}
    reply_to: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the state is final."""
        return self.status in READY_STATES


class _Meta(msgspec.Struct, gc=False):
    """The meta of a JSON result that is not extended, in Celery's order."""

    status: str
    result: msgspec.Raw
    traceback: str | None
    children: msgspec.Raw
    date_done: str | None
    group_id: str | msgspec.UnsetType
    parent_id: str | msgspec.UnsetType
    task_id: str


_write = msgspec.json.Encoder().encode


def encode(
    record: ResultRecord, codecs: Codecs, *, serializer: str = "json", extended: bool = False
) -> bytes:
    """Return the result meta as Celery's key-value backends store it.

    :param extended: write name, arguments, worker, retries, queue and stamps too (Celery: ``result_extended``); but no
        stamp by whose name the result could be read as a task, should it get into a queue of tasks.
    :raises EncodeError: the value cannot be written with this serializer.
    """
    if extended or serializer != "json":
        return codecs.encode(_as_meta(record, extended=extended), serializer).body
    children, done = record.children, record.date_done
    try:
        return _write(
            _Meta(
                record.status,
                msgspec.Raw(encode_json(plain(record.result), "result")),
                record.traceback,
                (_EMPTY_LIST if children is not None else _NULL)
                if not children
                else msgspec.Raw(encode_json(children, "children")),
                done.isoformat() if done is not None else None,
                record.group_id or msgspec.UNSET,
                record.parent_id or msgspec.UNSET,
                record.task_id,
            )
        )
    except UnicodeEncodeError:  # a lone surrogate, which only the slower writer can escape
        return encode_json(_as_meta(record, extended=False), "result meta")


def decode(raw: bytes, codecs: Codecs, task_id: str, serializer: str = "json") -> ResultRecord:
    """Return the record that a stored result meta holds.

    :param task_id: the id that the record was stored under.
    :raises MalformedMessage: ``raw`` is no result meta.
    :raises ContentRefused: it is compressed or serialized in a way that is not accepted or not installed here.
    """
    meta = _decode_content(raw, codecs, serializer)
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise MalformedMessage(f"result of task {task_id}: not an object with a status")
    get = meta.get
    status = meta["status"]
    children = get("children")
    return ResultRecord(
        task_id=task_id,
        status=status,
        result=_read_value(get("result"), status),
        traceback=_text(get("traceback")),
        children=list(children) if isinstance(children, (list, tuple)) else None,
        date_done=_read_date(get("date_done")),
        group_id=_text(get("group_id")),
        parent_id=_text(get("parent_id")),
        name=_text(get("name")),
        args=get("args"),
        kwargs=get("kwargs"),
        worker=_text(get("worker")),
        retries=_number(get("retries")),
        queue=_text(get("queue")),
        stamps=_read_stamps(meta) if "stamped_headers" in meta else {},
    )


def encode_value(record: ResultRecord, codecs: Codecs, serializer: str = "json") -> bytes:
    """Return the record's value alone, as Celery 5.7's database backend stores it in the ``result`` column.

    :raises EncodeError: the value cannot be written with this serializer.
    """
    return codecs.encode(plain(record.result), serializer).body


def decode_value(raw: bytes | None, status: str, codecs: Codecs, serializer: str = "json") -> Any:
    """Return the value of a ``result`` column: what was stored, or a ``Failure`` in an exception state.

    Celery before 5.7 always pickled it; that is read where pickle is accepted.

    :raises MalformedMessage: the bytes are not what the serializer writes.
    :raises ContentRefused: the bytes are pickled or compressed, and that is not accepted or not installed here.
    """
    return None if raw is None else _read_value(_decode_content(raw, codecs, serializer), status)


def _decode_content(raw: bytes, codecs: Codecs, serializer: str) -> Any:
    compression = None
    if raw.startswith(_COMPRESSED):
        mime, _, raw = raw[len(_COMPRESSED) :].partition(b"\x00")
        compression = mime.decode("ascii", "replace")
    elif raw.startswith(_PICKLED) and serializer in {"json", "yaml"}:
        return codecs.decode(raw, PICKLE, "binary")
    return codecs.decode(raw, SERIALIZERS.get(serializer, serializer), None, compression)


def _as_meta(record: ResultRecord, *, extended: bool) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "status": record.status,
        "result": plain(record.result),
        "traceback": record.traceback,
        "children": record.children,
        "date_done": record.date_done.isoformat() if record.date_done is not None else None,
    }
    if record.group_id:
        meta["group_id"] = record.group_id
    if record.parent_id:
        meta["parent_id"] = record.parent_id
    if extended:
        meta |= {
            "name": record.name,
            "args": record.args,
            "kwargs": record.kwargs,
            "worker": record.worker,
            "retries": record.retries,
            "queue": record.queue,
        }
        stamps = {name: value for name, value in record.stamps.items() if name not in MAKING_A_TASK}
        if stamps:
            meta = stamps | {"stamped_headers": list(stamps)} | meta
    return meta | {"task_id": record.task_id}


def plain(result: Any) -> Any:
    """Return a result as it is written: a ``Failure`` as Celery's dictionary, anything else as it is."""
    if isinstance(result, Failure):
        written = {
            "exc_type": result.exc_type,
            "exc_message": result.exc_message,
            "exc_module": result.exc_module,
        }
        return written if result.exc_text is None else written | {"exc_text": result.exc_text}
    return result


def _read_value(result: Any, status: str) -> Any:
    return (read_failure(result) or result) if status in EXCEPTION_STATES else result


def _read_date(value: Any) -> datetime | None:
    """Return the time that a writer noted; one without an offset is UTC (Celery 4). What is no time is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _read_stamps(meta: dict[str, Any]) -> dict[str, Any]:
    names = meta["stamped_headers"]
    return (
        {name: meta.get(name) for name in names if isinstance(name, str)} if isinstance(names, list) else {}
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
