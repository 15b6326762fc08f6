"""The lines of ``celeriac events``, as ``celery events --dump`` writes them.

Rules: equal events give equal lines. Control characters are made visible; only a traceback keeps its newlines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from celeriac.cli.visible import visible, visible_lines
from celeriac.wire.event import Event

REMEMBERED = 4095
"""Tasks whose names are remembered, since most events have only the id; Celery remembers as many."""

_TYPES = {"worker-offline": "shutdown", "worker-online": "started", "worker-heartbeat": "heartbeat"}
_NAMED = ("task-received", "task-sent")
_FAILED = ("task-failed", "task-retried", "task-rejected")


_LIKE_OURS = re.compile(r"\n(?=->|[^\n]* \[\d{4}-\d\d-\d\d )")


class Lines:
    """Writes events as lines, and keeps the logical clock that the readers of events share.

    :ivar clock: the value that Celery's readers would have.
    """

    def __init__(self) -> None:
        self.clock = 0
        self._names: dict[str, str] = {}

    def line(self, event: Event, received: float) -> str:
        """Return the line of an event.

        :param received: when it came, in seconds since the epoch.
        """
        fields = {**event.fields, "clock": self._clock_of(event), "local_received": received}
        for shown in ("type", "hostname", "timestamp"):
            fields.pop(shown, None)
        kind = event.type.lower()
        head = f"{visible(event.node)} [{_moment(event.timestamp)}] {visible(_TYPES.get(kind, kind.replace('-', ' ')))}"
        if not kind.startswith("task-"):
            return f"{head}{':' if fields else ''} {_written(fields)}"
        task = self._task(kind, fields)
        return f"{head}{':' if fields else ''} {task} {_written(fields)}"

    def _task(self, kind: str, fields: dict[str, Any]) -> str:
        """Return the text of the task, and take what is in it from the fields."""
        uuid = str(fields.pop("uuid", ""))
        if kind not in _NAMED:
            return self._names.get(uuid, "")
        name, args, kwargs = (fields.pop(field, None) for field in ("name", "args", "kwargs"))
        task = visible(f"{name}({uuid}) args={args} kwargs={kwargs}")
        self._names.pop(uuid, None)
        self._names[uuid] = task
        if len(self._names) > REMEMBERED:
            del self._names[next(iter(self._names))]
        return task

    def _clock_of(self, event: Event) -> Any:
        """Return the clock to show: the reader's own for programs that only send, since their clocks are never set."""
        clock = event.fields.get("clock")
        if event.type == "task-sent":
            clock = (self.clock or 1) - 1
        elif type(clock) is not int:
            self.clock += 1
            return self.clock
        self.clock = max(self.clock, clock) + 1
        return clock


class Wanted(msgspec.Struct, frozen=True):
    """Which events are shown; an empty part is for all.

    :param types: with or without ``task-`` or ``worker-``.
    :param tasks: patterns of names.
    :param failed: only what went wrong.
    :param follow: the id of a task: it and all that was sent from it.
    """

    types: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    failed: bool = False
    follow: str | None = None


class Filter:
    """Chooses events; it keeps of each task what only its first event has."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._of_task = bool(wanted.tasks or wanted.queues or wanted.ids or wanted.failed or wanted.follow)
        self._known: dict[str, Mapping[str, Any]] = {}

    def takes(self, event: Event) -> bool:
        """Whether the event is shown."""
        wanted, kind = self._wanted, event.type.lower()
        told = self._told(event)
        if wanted.types and kind not in wanted.types and kind.partition("-")[2] not in wanted.types:
            return False
        if not self._of_task:
            return True
        name, queue, root = (told.get(field) for field in ("name", "queue", "root_id"))
        return (
            (not wanted.failed or kind in _FAILED)
            and (not wanted.ids or event.task_id in wanted.ids)
            and (not wanted.tasks or any(fnmatchcase(str(name), pattern) for pattern in wanted.tasks))
            and (not wanted.queues or queue in wanted.queues)
            and (wanted.follow is None or wanted.follow in (event.task_id, root))
        )

    def _told(self, event: Event) -> Mapping[str, Any]:
        """Return what is known of the event's task."""
        task_id = event.task_id
        if task_id is None:
            return {}
        told = dict(self._known.pop(task_id, {}))
        told |= {
            field: event.fields[field] for field in ("name", "queue", "root_id") if event.fields.get(field)
        }
        self._known[task_id] = told
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return told


def _written(fields: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{visible(key)}={_indented(str(fields[key])) if key == 'traceback' else visible(str(fields[key]))}"
        for key in sorted(fields)
    )


def _indented(traceback: str) -> str:
    """Return the lines of a traceback; one that looks like the line of an event, or like a note, is moved in."""
    return _LIKE_OURS.sub("\n    ", visible_lines(traceback))


def _moment(timestamp: float) -> str:
    try:
        return str(datetime.fromtimestamp(timestamp, UTC))
    except (OverflowError, ValueError, OSError):
        return str(timestamp)
