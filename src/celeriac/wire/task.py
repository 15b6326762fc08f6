"""A task message: what a producer asks a worker to do."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class TaskMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one task, whichever protocol it travels in (Celery: Message Protocol, versions 1 and 2).

    Signature dictionaries stay as Celery writes them. ``chain`` is in wire order: the next step is its last element.
    ``time_limit`` and ``soft_time_limit`` are seconds. ``headers`` holds only the custom ones. ``ignore_result`` is
    ``None`` where the producer leaves it to the task.
    """

    id: str
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    retries: int = 0
    eta: datetime | None = None
    expires: datetime | None = None
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    callbacks: list[dict[str, Any]] = []
    errbacks: list[dict[str, Any]] = []
    chain: list[dict[str, Any]] = []
    chord: dict[str, Any] | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = {}
    origin: str | None = None
    lang: str | None = None
    args_repr: str | None = None
    kwargs_repr: str | None = None
    headers: dict[str, Any] = {}
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int = 0
    content_type: str = "application/json"
    compression: str | None = None
    protocol: Literal[1, 2] = 2


class Malformed(msgspec.Struct, frozen=True):
    """A message that is no task message, and why.

    ``id``, ``task`` and ``reply_to`` are filled in as far as they could be read, so that the caller can be told.
    ``refused`` says that the content type or compression is not accepted here, rather than broken.
    """

    reason: str
    id: str | None = None
    task: str | None = None
    reply_to: str | None = None
    refused: bool = False
