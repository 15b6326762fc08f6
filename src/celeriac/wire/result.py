"""The record of a task's state and value.

Rules: what is written is Celery's result meta, key for key; what is read may come from any writer (Celery 3.1 and
newer, gocelery, celery.node), so every field but the status is optional and of any type. The id is the reader's:
gocelery stores an empty one. How it is serialized follows from its bytes. A record can always be written, but for the
value of a success or of a custom state: what its serializer cannot write becomes text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.wire.content import FREE, JSON, MSGPACK, PICKLE, SERIALIZERS, YAML, Codecs
from celeriac.wire.extended_json import encode_json
from celeriac.wire.failure import Failure, read_failure
from celeriac.wire.names import MAKING_A_TASK
from celeriac.wire.preview import preview

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
_MANY = 1000
_EMPTY_LIST = msgspec.Raw(b"[]")
_NULL = msgspec.Raw(b"null")


class ResultRecord(msgspec.Struct, frozen=True, gc=False):
    """The record of a task's state and value (Celery: the result meta object).

    ``result`` is the value, or a ``Failure`` in an exception state, or the meta of a custom state. ``children`` holds
    Celery's result tuples. The fields from ``name`` on are written where results are extended; ``reply_to`` never is:
    it is where a backend that sends results sends this one to. ``args_repr`` and ``kwargs_repr`` are the arguments as
    their sender lets them be shown, for stores that keep those in place of the arguments (django-celery-results).
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
    args_repr: str | None = None
    kwargs_repr: str | None = None

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
    date_done: msgspec.Raw
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
    :raises EncodeError: the value of a success or of a custom state cannot be written with this serializer.
    """
    if extended or serializer != "json":
        return _encode_meta(record, codecs, serializer, extended=extended)
    children, done = record.children, record.date_done
    value = plain(record.result) if isinstance(record.result, Failure) else record.result
    try:
        return _write(
            _Meta(
                record.status,
                msgspec.Raw(encode_json(value, "result")),
                record.traceback,
                (_EMPTY_LIST if children is not None else _NULL)
                if not children
                else msgspec.Raw(encode_json(children, "children")),
                msgspec.Raw(_write_moment(done)) if done is not None else _NULL,
                record.group_id or msgspec.UNSET,
                record.parent_id or msgspec.UNSET,
                record.task_id,
            )
        )
    except (UnicodeEncodeError, EncodeError):  # a lone surrogate is escaped by the slower writer
        return _encode_meta(record, codecs, serializer, extended=False)


def _write_moment(moment: datetime) -> bytes:
    """Return the JSON text of what ``isoformat`` says, which takes five times as long; msgspec says ``Z`` of UTC."""
    if moment.tzinfo is UTC:
        return b'%b+00:00"' % _write(moment)[:-2]
    return _write(moment.isoformat())


def decode(raw: bytes, codecs: Codecs, task_id: str, serializer: str = "json") -> ResultRecord:
    """Return the record that a stored result meta holds.

    :param task_id: the id that the record was stored under.
    :param serializer: tells a digit of JSON from one of msgpack; all else the bytes tell.
    :raises MalformedMessage: ``raw`` is no result meta.
    :raises ContentRefused: it is compressed or serialized in a way that is not accepted or not installed here.
    """
    meta = decode_stored(raw, codecs, serializer)
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
        date_done=read_date(get("date_done")),
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

    :raises EncodeError: the value of a success or of a custom state cannot be written with this serializer.
    """
    return _encode_result(record.result, codecs, serializer)[0]


def encode_part(task_id: str, state: str, value: Any, codecs: Codecs, serializer: str) -> bytes:
    """Return a chord's part, as Celery's key-value backends count it.

    :param value: what the task returned, or the ``Failure`` it ended with.
    :raises EncodeError: a returned value cannot be written with this serializer.
    """
    try:
        return codecs.encode([1, task_id, state, plain(value)], serializer).body
    except EncodeError:
        _, written = _encode_result(value, codecs, serializer)
        return codecs.encode([1, writable_text(task_id), writable_text(state), written], serializer).body


def encode_lossy(value: Any, codecs: Codecs, serializer: str) -> bytes:
    """Return a value with what this serializer cannot write replaced by its repr. Never raises."""
    try:
        return codecs.encode(value, serializer).body
    except EncodeError:
        return codecs.encode(_writable(value, codecs, serializer), serializer).body


def writable_text(text: str) -> str:
    """Return text that every serializer and database can write: lone surrogates and NUL as escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def decode_value(raw: bytes | None, status: str, codecs: Codecs, serializer: str = "json") -> Any:
    """Return the value of a ``result`` column: what was stored, or a ``Failure`` in an exception state.

    Celery before 5.7 always pickled it; that is read where pickle is accepted.

    :raises MalformedMessage: the bytes are not what the serializer writes.
    :raises ContentRefused: the bytes are pickled or compressed, and that is not accepted or not installed here.
    """
    return None if raw is None else _read_value(decode_stored(raw, codecs, serializer), status)


def decode_stored(raw: bytes, codecs: Codecs, serializer: str = "json") -> Any:
    """Return the value of bytes in a result store. They do not say how they are serialized, as any Celery writes them.

    :param serializer: tells a digit of JSON from one of msgpack; all else the bytes tell.
    :raises MalformedMessage: the bytes are nothing that a serializer writes.
    :raises ContentRefused: they are compressed or serialized in a way that is not accepted or not installed here.
    """
    if raw.startswith(_COMPRESSED):
        mime, _, raw = raw[len(_COMPRESSED) :].partition(b"\x00")
        raw = codecs.decompress(raw, mime.decode("ascii", "replace"))
    form = _form_of(raw, SERIALIZERS.get(serializer, serializer), numbers=codecs.accepts(MSGPACK))
    if form != YAML:
        return codecs.decode(raw, form, None)
    # Text: what is JSON means the same in YAML, but that it has tagged values.
    if not codecs.accepts(YAML):
        return codecs.decode(raw, JSON, None)
    if codecs.accepts(JSON):
        try:
            return codecs.decode(raw, JSON, None)
        except MalformedMessage:
            pass
    return codecs.decode(raw, YAML, None)


def takes_long(raw: bytes | None, codecs: Codecs) -> bool:
    """Whether reading a record may take so long that an event loop should leave it to a thread."""
    if raw is None:
        return False
    compressed = raw.startswith(_COMPRESSED)
    text = YAML if codecs.accepts(YAML) and raw[:1] not in b"{[" else None
    return codecs.takes_long(raw, text, "any" if compressed else None)


def take_long(raws: Sequence[bytes], codecs: Codecs) -> bool:
    """The same of several records together, or of a great many."""
    total = sum(map(len, raws))
    return total > FREE or len(raws) > _MANY or (total > 0 and any(takes_long(raw, codecs) for raw in raws))


def is_pickle(raw: bytes) -> bool:
    """Whether bytes of a result store are pickled; an empty object of msgpack is one byte."""
    return raw.startswith(_PICKLED) and len(raw) > 1


def _form_of(raw: bytes, usual: str, *, numbers: bool) -> str:
    """Return the content type of serialized bytes, YAML for all text.

    :param numbers: take a byte that is no digit for a number of msgpack.
    """
    if not raw:
        return usual
    first = raw[0]
    if is_pickle(raw):
        return PICKLE
    if first >= 0x80:
        return MSGPACK
    if len(raw) == 1 and numbers and not (raw.isdigit() and usual != MSGPACK):
        return MSGPACK
    return JSON if first in b"{[" else YAML


def _encode_meta(record: ResultRecord, codecs: Codecs, serializer: str, *, extended: bool) -> bytes:
    meta = _as_meta(record, extended=extended)
    try:
        return codecs.encode(meta, serializer).body
    except EncodeError:
        _, value = _encode_result(record.result, codecs, serializer)
        meta = {
            name: _writable(field, codecs, serializer) for name, field in meta.items() if name != "result"
        }
        return codecs.encode(meta | {"result": value}, serializer).body


def _encode_result(result: Any, codecs: Codecs, serializer: str) -> tuple[bytes, Any]:
    """Return the bytes of a result and what they stand for. Raises ``EncodeError`` for what is no ``Failure``."""
    value = plain(result)
    try:
        if serializer == "json":
            return encode_json(value, "result"), value
        return codecs.encode(value, serializer).body, value
    except EncodeError:
        if not isinstance(result, Failure):
            raise
    value = {name: _writable(field, codecs, serializer) for name, field in value.items()}
    return codecs.encode(value, serializer).body, value


def _writable(value: Any, codecs: Codecs, serializer: str) -> Any:
    """Return the value, or the most of it that this serializer writes: of a collection each item by itself."""
    try:
        codecs.encode(value, serializer)
    except EncodeError:
        pass
    else:
        return value
    if type(value) in (list, tuple):
        return [_writable_item(item, codecs, serializer) for item in value]
    if type(value) is dict:
        return {
            writable_text(key if isinstance(key, str) else preview(key)): _writable_item(
                item, codecs, serializer
            )
            for key, item in value.items()
        }
    return _writable_item(value, codecs, serializer)


def _writable_item(value: Any, codecs: Codecs, serializer: str) -> Any:
    if isinstance(value, str):
        return writable_text(value)
    try:
        codecs.encode(value, serializer)
    except EncodeError:
        return writable_text(preview(value))
    return value


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


def read_date(value: Any) -> datetime | None:
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
