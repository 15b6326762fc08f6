"""From events to rows, purely: what one event says about one task.

Rules: events of several programs come in any order. A state is replaced by a later one; an ended task begins anew only
by an event that is later than its end. What an event does not say stays as it was; a time or a count that no worker
would tell counts as not said, and a text is cut where it is longer than workers make one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from celeriac.monitor.rows import ENDED, AttemptRow, TaskRow
from celeriac.quantities import FARTHEST, is_number

STATES = {
    "task-sent": "PENDING",
    "task-received": "RECEIVED",
    "task-started": "STARTED",
    "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE",
    "task-retried": "RETRY",
    "task-revoked": "REVOKED",
    "task-rejected": "REJECTED",
}

LONGEST_TEXT = 64 * 1024
"""Characters of one field that are kept: what celeriac's and Celery's workers describe is shorter."""

LONGEST_NAME = 300
"""Characters of the id of a task, and of a name that is kept: an index of PostgreSQL holds no more of them."""

_NAMES = frozenset({"name", "queue", "root", "parent"})
_MOST_RETRIES = 2**31

_RANK = {state: rank for rank, state in enumerate(STATES.values())}
_TIMES = {
    "task-sent": "sent",
    "task-received": "received",
    "task-started": "started",
    "task-succeeded": "ended",
    "task-failed": "ended",
    "task-revoked": "ended",
    "task-rejected": "ended",
}
_TEXTS = {
    "name": "name",
    "args": "args",
    "kwargs": "kwargs",
    "queue": "queue",
    "eta": "eta",
    "expires": "expires",
    "root_id": "root",
    "parent_id": "parent",
    "result": "result",
    "exception": "error",
}
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_CLASS = re.compile(r"^[\w.]+")
_LIBRARY = re.compile(r"site-packages|dist-packages|/lib/python3|[/\\]celeriac[/\\]|<frozen")


def fold(row: TaskRow, event: Mapping[str, Any]) -> None:
    """Take into a task's row what an event says."""
    kind = event["type"]
    at = _moment(event.get("timestamp")) or row.changed
    for field, name in _TEXTS.items():
        value = event.get(field)
        if value is not None and (value := _text(value)):
            setattr(row, name, value[:LONGEST_NAME] if name in _NAMES else value)
    if row.parent == row.id:
        row.parent = ""  # Celery names a task that is retried as its own parent
    if kind != "task-sent" and (node := _text(event.get("hostname") or "")):
        row.worker = node[:LONGEST_NAME]
    if kind == "task-progress":
        row.progress = _progress(event)
        return
    state = STATES.get(kind)
    if state is None:
        return
    _take_time(row, kind, at)
    row.retries = max(row.retries, int(_number(event.get("retries"), _MOST_RETRIES) or 0))
    if (runtime := _number(event.get("runtime"), FARTHEST)) is not None:
        row.runtime = runtime
    if _is_later(row, state, at):
        row.state, row.changed = state, at
        if state == "SUCCESS":
            row.error = ""


def attempt_of(row: TaskRow, event: Mapping[str, Any]) -> AttemptRow | None:
    """Return the attempt that an event says has raised, if it says so."""
    if event["type"] not in ("task-failed", "task-retried"):
        return None
    traceback, error = _text(event.get("traceback") or ""), _text(event.get("exception") or "")
    return AttemptRow(
        task=row.id,
        retries=row.retries,
        at=_moment(event.get("timestamp")) or row.changed,
        worker=row.worker,
        state=STATES[event["type"]],
        error=error,
        traceback=traceback,
        group=fingerprint(row.name, error, traceback),
    )


def error_class(error: str) -> str:
    """Return the name of the exception's class in the text of an error; a retry need not have one."""
    found = _CLASS.match(error)
    return found[0] if found and found[0] != "None" else "Retry"


def place_of(traceback: str) -> str:
    """Return ``file:function`` of the last frame in the user's own code; empty where there is none."""
    frames = [(found["file"], found["function"]) for found in _FRAME.finditer(traceback)]
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else ""


def fingerprint(name: str, error: str, traceback: str) -> str:
    """Return what errors of one kind have in common: task, class and place, not the message."""
    parts = "\0".join((name, error_class(error), place_of(traceback)))
    return blake2b(parts.encode(errors="replace"), digest_size=8).hexdigest()


def _take_time(row: TaskRow, kind: str, at: float) -> None:
    column = _TIMES.get(kind)
    if column is None:
        return
    if column == "ended" and row.ended is not None and row.ended >= at:
        return
    if column in ("sent", "received") and getattr(row, column) is not None:
        return  # the first time counts: a retry is received again
    setattr(row, column, at)


def _is_later(row: TaskRow, state: str, at: float) -> bool:
    if row.state in ENDED and state not in ENDED:
        return row.ended is not None and at > row.ended and state != "PENDING"
    if state in ENDED or row.state == "RETRY" or state == "RETRY":
        return state in ENDED or at >= row.changed
    return _RANK[state] >= _RANK.get(row.state, 0)


def _progress(event: Mapping[str, Any]) -> str:
    said = {name: event.get(name) for name in ("progress", "total", "message")}
    try:
        written = msgspec.json.encode(said).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""
    return written if len(written) <= LONGEST_TEXT else ""


def _text(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or too deep
        return ""
    return text[:LONGEST_TEXT].encode(errors="backslashreplace").decode()


def _moment(value: Any) -> float | None:
    return _number(value, FARTHEST)


def _number(value: Any, border: float) -> float | None:
    """Return the number, if it is one from 0 to less than the border."""
    return float(value) if is_number(value) and 0 <= value < border else None
