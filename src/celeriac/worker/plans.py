"""What all runs of one task have in common in one worker, so that it is looked up once and not for each message.

Rules: an option of the task goes before the setting of the app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from celeriac.client.conduct import Conduct
from celeriac.client.task import AS_JSON
from celeriac.errors import TimeLimitExceeded, WorkerLost
from celeriac.retry import Retry
from celeriac.settings import Settings
from celeriac.wire.task import TaskMessage
from celeriac.worker.runnable import Runnable


class Plan(msgspec.Struct, frozen=True):
    """How one worker runs one task.

    :param is_early: whether a message is acknowledged before the body runs.
    :param is_tracked: whether the state STARTED is stored.
    :param concludes: whether the function hands over its ending by itself.
    :param takes_context: whether the function gets its context.
    :param soft: the soft time limit in seconds, ``None`` for none.
    :param hard: the hard time limit in seconds, ``None`` for none.
    :param max_deliveries: how often a message is delivered before it is set aside.
    :param retry: the policy by which a failure is tried again.
    :param keeps_result: whether results are stored; a message may say otherwise.
    :param keeps_errors: whether failures are stored, whatever the message says.
    :param require_same: raises ``EncodeError`` for a value that JSON would change; ``None`` where it changes none.
    :param back: errors after which the message goes back to its queue.
    :param bury: whether the message of a failed task goes to the dead letters.
    """

    is_early: bool
    is_tracked: bool
    concludes: bool
    takes_context: bool
    soft: float | None
    hard: float | None
    max_deliveries: int
    retry: Retry | None
    keeps_result: bool
    keeps_errors: bool
    require_same: Callable[[Any], None] | None
    back: tuple[type[BaseException], ...]
    bury: bool

    def keeps(self, message: TaskMessage, *, failed: bool) -> bool:
        """Whether the result of a message of the task is stored."""
        if failed and self.keeps_errors:
            return True
        ignored = message.ignore_result
        return self.keeps_result if ignored is None else not ignored


class Plans(dict[Runnable, Plan]):
    """The plan of each task, made when the first message of the task comes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def __missing__(self, task: Runnable) -> Plan:
        options, conduct, settings = task.options, task.conduct, self._settings
        ignored = settings.ignore_result if options.ignore_result is None else options.ignore_result
        is_checked = settings.result_serializer in AS_JSON and task.returns.names_records
        tracked, soft, hard = options.track_started, options.soft_timeout, options.timeout
        self[task] = plan = Plan(
            is_early=(options.delivery or settings.delivery) == "at_most_once",
            is_tracked=settings.track_started if tracked is None else tracked,
            concludes=conduct.concludes,
            takes_context=task.arguments.context_parameter is not None,
            soft=settings.soft_time_limit if soft is None else soft,
            hard=settings.time_limit if hard is None else hard,
            max_deliveries=options.max_deliveries or settings.max_deliveries,
            retry=options.retry or settings.default_retry,
            keeps_result=not ignored,
            keeps_errors=conduct.keep_errors,
            require_same=task.require_same if is_checked else None,
            back=_back(conduct),
            bury=conduct.bury_failed,
        )
        return plan


def _back(conduct: Conduct) -> tuple[type[BaseException], ...]:
    lost = (WorkerLost,) if conduct.requeue_lost else ()
    return (*lost, TimeLimitExceeded) if conduct.requeue_late else lost
