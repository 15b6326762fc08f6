"""A signature in Celery's dictionary form: a call that a worker or a client makes later.

Rules: ``read`` takes what any Celery since 3.1 wrote and names what is wrong with anything else; ``write`` makes what
Celery 5 writes. What an option means is not decided here. Source: Celery, ``celery.canvas`` signatures on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.errors import MalformedMessage
from celeriac.quantities import FARTHEST

CHAIN, GROUP, CHORD, CHUNKS = "chain", "group", "chord", "chunks"

COMPOSITE_NAMES = {CHAIN: "celery.chain", GROUP: "celery.group", CHORD: "celery.chord"}
"""The task names in signatures of composites; no task of such a name ever runs."""

MAP, STARMAP, ACCUMULATE = "celery.map", "celery.starmap", "celery.accumulate"
"""Tasks that every Celery worker has: call a task with each item, with each list of arguments; return an argument."""

ITERATING_TYPES = {MAP: "xmap", STARMAP: "xstarmap"}
"""The ``subtask_type`` of signatures of these tasks."""


class WireSignature(msgspec.Struct, frozen=True):
    """The parts of a signature.

    :param kind: ``chain``, ``group``, ``chord``, ``chunks``; ``None`` for one call of one task.
    :param immutable: it takes no value from what ran before.
    """

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    kind: str | None = None
    immutable: bool = False


class _Options(msgspec.Struct):
    """The options whose type matters to the program that sends the signature."""

    task_id: str | None = None
    group_id: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    reply_to: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    serializer: str | None = None
    compression: str | None = None
    priority: int | None = None
    countdown: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    replaced_task_nesting: int | None = None
    headers: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    link: list[Any] | dict[str, Any] | None = None
    link_error: list[Any] | dict[str, Any] | None = None
    chain: list[Any] | None = None
    chord: dict[str, Any] | None = None


class _Fields(msgspec.Struct):
    task: str
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    subtask_type: str | None = None
    immutable: bool | None = None


def read(signature: Any) -> WireSignature:
    """Return the parts of a signature. Raises ``MalformedMessage`` for what is none."""
    try:
        fields = msgspec.convert(signature, _Fields)
        if fields.options:
            msgspec.convert(fields.options, _Options)
            _require_time(fields.options.get("countdown"))
            read_time(fields.options.get("eta"))
            read_expires(fields.options.get("expires"))
    except (msgspec.ValidationError, ValueError) as error:
        raise MalformedMessage(f"no signature ({error}): {signature!r:.200}") from None
    if not fields.task:
        raise MalformedMessage(f"a signature without a task name: {signature!r:.200}")
    kind = fields.subtask_type
    return WireSignature(
        fields.task,
        list(fields.args or ()),
        fields.kwargs or {},
        fields.options or {},
        kind if kind in {CHAIN, GROUP, CHORD, CHUNKS} else None,
        bool(fields.immutable),
    )


def misfit(name: str, value: Any) -> str | None:
    """Say what is wrong with the type of an option, or ``None``."""
    try:
        msgspec.convert({name: value}, _Options)
    except msgspec.ValidationError as error:
        return str(error).partition(" - at ")[0]
    return None


def read_time(value: Any) -> datetime | None:
    """Return the time of an option; Celery 4 writes text, and one without an offset is UTC. Raises ``ValueError``."""
    if value is None:
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise ValueError(f"{value!r:.100} is no time")  # noqa: TRY004 - one error for whatever is not
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_expires(value: Any) -> float | datetime | None:
    """Return the seconds or the time of an option. Raises ``ValueError``."""
    if isinstance(value, int | float):
        _require_time(value)
        return value
    return read_time(value)


def _require_time(seconds: float | None) -> None:
    if seconds is not None and not abs(seconds) < FARTHEST:
        raise ValueError(f"from {seconds!r:.100} seconds no time can be made")


def write(
    task: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    immutable: bool = False,
) -> dict[str, Any]:
    """Return a signature as Celery 5 writes it."""
    return {
        "task": task,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "options": dict(options or {}),
        "subtask_type": kind or ITERATING_TYPES.get(task),
        "immutable": immutable,
    }


def as_list(signatures: Any) -> list[Any]:
    """Return what ``link`` and ``link_error`` hold, one signature or several, as a list."""
    if not signatures:
        return []
    return [signatures] if isinstance(signatures, Mapping) else list(signatures)
