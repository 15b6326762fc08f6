"""Events: what workers and senders tell monitors (Celery: ``celeryev``).

Rules: this module is pure. Events that we write have Celery's types and fields, and a few fields more, which Celery's
readers keep. Writing never raises, whatever a text holds. Reading never raises; what is no event is left out, and so is
a number that no float holds. What is read can be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from celeriac.errors import WireError
from celeriac.quantities import FARTHEST, is_number
from celeriac.wire.content import JSON, Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.extended_json import encode_json
from celeriac.wire.names import is_text
from celeriac.wire.preview import LIMIT, preview
from celeriac.wire.task import TaskMessage

EVENTS = "celeryev"
"""The exchange that monitors listen to."""

SENT_KEY, TASK_KEY = "task.sent", "task.multi"
"""The routing keys of what senders tell, and of a list of what workers tell of tasks."""

LONGEST_TRACEBACK = 16 * 1024
"""Characters of a traceback that an event keeps, the last ones."""

_NOTHING = object()
_TRANSIENT = 1
_BEGINNING = b'{"type":'
"""How the encoder begins each event: with its tag."""


class _Task(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """An event of a task.

    :param clock: the logical clock of its node.
    :param timestamp: seconds since the epoch.
    """

    clock: int
    timestamp: float
    uuid: str


class TaskSent(_Task, frozen=True, gc=False, tag="task-sent"):
    """A message was published. ``args`` and ``kwargs`` are text, ``eta`` and ``expires`` ISO 8601."""

    name: str
    args: str
    kwargs: str
    root_id: str | None
    parent_id: str | None
    retries: int
    eta: str | None
    expires: str | None
    queue: str | None
    exchange: str
    routing_key: str


class TaskReceived(TaskSent, frozen=True, gc=False, tag="task-received"):
    """A worker took the message, and does not put it back to wait."""


class TaskStarted(_Task, frozen=True, gc=False, tag="task-started"):
    """The task runs."""


class TaskSucceeded(_Task, frozen=True, gc=False, tag="task-succeeded"):
    """It returned. ``result`` is text, ``runtime`` seconds."""

    result: str
    runtime: float


class TaskFailed(_Task, frozen=True, gc=False, omit_defaults=True, tag="task-failed"):
    """It failed for good.

    :param name: with ``args`` and ``kwargs`` only where no earlier event gave them.
    """

    exception: str
    traceback: str | None = None
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None


class TaskRetried(_Task, frozen=True, gc=False, omit_defaults=True, tag="task-retried"):
    """It failed and will run again."""

    exception: str
    traceback: str | None = None


class TaskRevoked(_Task, frozen=True, gc=False, tag="task-revoked"):
    """It was revoked or has expired. ``signum`` is the signal that ended it, if it ran."""

    terminated: bool
    signum: int | None
    expired: bool


class TaskRejected(_Task, frozen=True, gc=False, tag="task-rejected"):
    """It refused its message."""

    requeue: bool


class TaskProgress(_Task, frozen=True, gc=False, tag="task-progress"):
    """It reports how far it is. Celery has no such event; its monitors show the state PROGRESS."""

    progress: float
    total: float | None
    message: str | None


class _Worker(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """An event of a worker.

    :param freq: seconds between heartbeats; a monitor gives up a worker that is silent for twice as long.
    :param active: tasks that run.
    :param processed: tasks that were started since the worker began.
    :param loadavg: of the machine, over 1, 5 and 15 minutes.
    :param sampled: the share of tasks that events tell of, if that is not all of them.
    :param dropped: events that the worker had to forget.
    :param lag: seconds for which the worker's event loop has not answered.
    """

    clock: int
    timestamp: float
    freq: float
    active: int
    processed: int
    loadavg: Sequence[float]
    sw_ident: str
    sw_ver: str
    sw_sys: str
    sampled: float | None = None
    dropped: int = 0
    lag: float | None = None


class WorkerOnline(_Worker, frozen=True, omit_defaults=True, tag="worker-online"):
    """A worker takes messages."""


class WorkerHeartbeat(_Worker, frozen=True, omit_defaults=True, tag="worker-heartbeat"):
    """A worker lives."""


class WorkerOffline(_Worker, frozen=True, omit_defaults=True, tag="worker-offline"):
    """A worker has ended."""


class WorkerElectAck(msgspec.Struct, frozen=True, tag_field="type", tag="worker-elect-ack"):
    """A worker has received the candidacy of an election; ``id`` is the election's."""

    clock: int
    timestamp: float
    id: str


TaskEvent: TypeAlias = (
    TaskSent
    | TaskReceived
    | TaskStarted
    | TaskSucceeded
    | TaskFailed
    | TaskRetried
    | TaskRevoked
    | TaskRejected
    | TaskProgress
)
WorkerEvent: TypeAlias = WorkerOnline | WorkerHeartbeat | WorkerOffline | WorkerElectAck


def call_of(message: TaskMessage) -> tuple[str, str, str]:
    """Return the task's name, its arguments and its keyword arguments, as events give them."""
    args, kwargs = message.args_repr, message.kwargs_repr
    return (
        (message.shadow or message.task)[:LIMIT],
        preview(tuple(message.args)) if args is None else args[:LIMIT],
        preview(message.kwargs) if kwargs is None else kwargs[:LIMIT],
    )


def described(
    message: TaskMessage,
) -> tuple[str, str, str, str, str | None, str | None, int, str | None, str | None]:
    """Return what ``TaskSent`` and ``TaskReceived`` say of a message, in the order of their fields."""
    name, args, kwargs = call_of(message)
    eta, expires = message.eta, message.expires
    return (
        message.id,
        name,
        args,
        kwargs,
        message.root_id,
        message.parent_id,
        message.retries,
        None if eta is None else eta.isoformat(),
        None if expires is None else expires.isoformat(),
    )


class EventWriter:
    """Writes the events of one node.

    :param node: the name of the worker, or of the program that sends.
    :param pid: its process.
    :param utcoffset: hours by which the node's local time is behind UTC. Celery's readers move each timestamp by the
        difference to their own, although it is in UTC already, and leave it alone where the field is absent. So
        another offset than 0 is left out.
    """

    def __init__(self, node: str, pid: int, utcoffset: float = 0.0) -> None:
        origin: dict[str, Any] = {"hostname": _readable(node), "pid": pid}
        if utcoffset == 0:
            origin["utcoffset"] = 0.0
        self._start = msgspec.json.encode(origin)[:-1] + b',"type":'
        self._headers = {"hostname": _readable(node)}
        self._encode = msgspec.json.Encoder().encode

    def message(self, events: Sequence[TaskEvent]) -> Envelope:
        """Return the message that holds a list of events."""
        return self._envelope(self._written(events))

    def single(self, event: TaskEvent | WorkerEvent) -> Envelope:
        """Return the message that holds one event, which is not in a list."""
        return self._envelope(self._written(event))

    def _written(self, events: TaskEvent | WorkerEvent | Sequence[TaskEvent]) -> bytes:
        """Return events as JSON, each with where it comes from.

        An event has no object in it, and quotes in its texts are escaped, so that these bytes are the beginning of an
        event wherever they are.
        """
        try:
            return self._encode(events).replace(_BEGINNING, self._start)
        except (UnicodeEncodeError, OverflowError):  # half a surrogate pair, a number of more than 64 bits
            if isinstance(events, Sequence):
                return b"[" + b",".join([self._written(event) for event in events]) + b"]"
            fields = {name: getattr(events, name) for name in events.__struct_fields__}
            return self._start + b" " + encode_json({"type": events.__struct_config__.tag, **fields})[9:]

    def _envelope(self, body: bytes) -> Envelope:
        return Envelope(
            body=body,
            content_type=JSON,
            content_encoding="utf-8",
            headers=self._headers,
            delivery_mode=_TRANSIENT,
        )


class Event(msgspec.Struct, frozen=True):
    """One event as it was heard.

    :param type: such as ``task-succeeded`` or ``worker-heartbeat``.
    :param node: the worker or program that sends it.
    :param timestamp: seconds since the epoch, 0 where there is none.
    :param fields: what is in it, these three included under ``type``, ``hostname`` and ``timestamp``. Numbers are
        finite, and texts have no half of a surrogate pair.
    """

    type: str
    node: str
    timestamp: float
    fields: dict[str, Any]

    @property
    def task_id(self) -> str | None:
        """The id of the task; ``None`` for an event of a worker."""
        uuid = self.fields.get("uuid")
        return uuid if isinstance(uuid, str) else None


def read_events(heard: Envelope | Unreadable, codecs: Codecs) -> list[Event]:
    """Return the events that a message holds, one or a list of them; what is no event is left out."""
    if isinstance(heard, Unreadable):
        return []
    try:
        body = codecs.decode(heard.body, heard.content_type, heard.content_encoding)
    except WireError:
        return []
    events: Iterable[Any] = body if isinstance(body, list) else (body,)
    return [event for fields in events if (event := _event(fields)) is not None]


def key_of(event_type: str) -> str:
    """Return the routing key of events of a type."""
    return event_type.replace("-", ".")


def cut_traceback(text: str) -> str:
    """Return the last part of a traceback, as much of it as an event keeps."""
    return text if len(text) <= LONGEST_TRACEBACK else "..." + text[3 - LONGEST_TRACEBACK :]


def _event(found: Any) -> Event | None:
    if not isinstance(found, dict):
        return None
    fields = {
        name if name.isascii() else _readable(name): value
        for name, given in found.items()
        if isinstance(name, str) and (value := _as_told(given)) is not _NOTHING
    }
    kind, node, at = fields.get("type"), fields.get("hostname"), fields.get("timestamp", 0.0)
    if not isinstance(kind, str) or not kind or not isinstance(node, str):
        return None
    if is_number(at) and not 0 <= at < FARTHEST:
        del fields["timestamp"]
        at = 0.0
    return Event(kind, node, float(at) if is_number(at) else 0.0, fields)


def _as_told(value: Any) -> Any:
    """Return the value of a field so that it can be counted, compared and written; ``_NOTHING`` where it cannot."""
    if isinstance(value, str):
        return value if is_text(value) else _readable(value)
    if isinstance(value, int | float):
        return value if isinstance(value, bool) or is_number(value) else _NOTHING
    return value


def _readable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
