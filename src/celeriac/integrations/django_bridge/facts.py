"""What is known of one call of a Django task besides its result: kept beside that, and sent along with the message.

Rules: Celery's result of the task stays what it is, so that both sides read it; the facts are a record of their own,
written when the task is sent, and again when it is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

HEADER = "django-task"
"""The header of a message that carries the facts to the worker, without the arguments."""

STATE = "FACTS"
"""The state of the record with the facts; of Celery's own states some are final, and never written again."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a Django task.

    :param task: the dotted path of its function, which is the name that messages carry.
    :param alias: the backend's name in the setting ``TASKS``.
    :param workers: the node names of the workers that started it, one for each attempt.
    """

    task: str
    alias: str
    queue: str
    priority: int
    enqueued_at: datetime
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    run_after: datetime | None = None
    started_at: datetime | None = None
    last_attempted_at: datetime | None = None
    workers: list[str] = []

    def begun(self, now: datetime, worker: str) -> Facts:
        """Return the facts of a task that a worker starts."""
        return msgspec.structs.replace(
            self, started_at=self.started_at or now, last_attempted_at=now, workers=[*self.workers, worker]
        )

    def header(self) -> Mapping[str, Any]:
        """Return what a message carries: its arguments are in it already."""
        bare = msgspec.structs.replace(self, args=[], kwargs={})
        return {HEADER: msgspec.to_builtins(bare)}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the result store says of a task.

    :param state: Celery's state.
    :param error: the dotted path of the class of the exception that it raised.
    """

    state: str
    value: Any = None
    error: str | None = None
    traceback: str = ""
    ended_at: datetime | None = None


class Stored(msgspec.Struct, frozen=True):
    """Both records of a task; ``None`` for one that is not there."""

    facts: Facts | None
    outcome: Outcome | None


def beside(task_id: str) -> str:
    """Return the id under which the facts of a task are kept."""
    return f"{task_id}-django"


def as_record(facts: Facts) -> Any:
    """Return the facts as the value of a result."""
    return msgspec.to_builtins(facts)


def read_facts(value: Any) -> Facts | None:
    """Return the facts of such a value, ``None`` for any other."""
    try:
        return msgspec.convert(value, Facts)
    except msgspec.ValidationError:
        return None
