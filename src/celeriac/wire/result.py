"""The record of a task's state and value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from celeriac.wire.failure import Failure

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


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a task's outcome (Celery: the result meta object).

    ``result`` is the value, or a ``Failure`` in an exception state, or the meta of a custom state. ``children`` holds
    Celery's result tuples. The fields from ``name`` on are written where results are extended.
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

    @property
    def ready(self) -> bool:
        """Whether the state is final."""
        return self.status in READY_STATES
