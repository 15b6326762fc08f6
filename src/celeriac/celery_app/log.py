"""What a worker tells the log of a Celery app's tasks, where Celery's worker has a line that people look for.

Rules: such a line has Celery's logger, level and text, since filters, alerts and scripts go by these; what Celery's own
tracer tells, it tells here too. All else is told as of any app.
"""

from __future__ import annotations

import logging
import sys

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from celeriac.errors import TaskNotFound
from celeriac.wire.result import FAILURE, REVOKED
from celeriac.worker.attempt import Attempt
from celeriac.worker.log import Log, fields_of

request_log = logging.getLogger("celery.worker.request")
consumer_log = logging.getLogger("celery.worker.consumer.consumer")
control_log = logging.getLogger("celery.worker.control")


class CeleryLog(Log):
    """Writes Celery's line where there is one."""

    def soft_limit_passed(self, attempt: Attempt, seconds: float) -> None:
        text = "Soft time limit (%.10gs) exceeded for %s"
        request_log.warning(text, seconds, _named(attempt), extra=fields_of(attempt))

    def ended(self, attempt: Attempt) -> None:
        decision = attempt.decision
        assert decision is not None
        if attempt.is_concluded or decision.state not in (FAILURE, REVOKED):
            super().ended(attempt)
        elif decision.state == REVOKED:
            text = "Terminating %s (%d)"
            control_log.info(text, attempt.message.id, attempt.signal, extra=fields_of(attempt))
        elif isinstance(decision.error, TimeLimitExceeded):
            text, seconds = "Hard time limit (%.10gs) exceeded for %s", decision.error.args[0]
            request_log.error(text, seconds, _named(attempt), extra=fields_of(attempt))
        elif isinstance(decision.error, WorkerLostError):
            text = "Task handler raised error: %r, of %s"
            request_log.error(text, decision.error, _named(attempt), extra=fields_of(attempt))
        else:
            super().ended(attempt)

    def declined(self, attempt: Attempt) -> None:
        if attempt.decision is not None and attempt.decision.state == REVOKED:
            text = "Discarding revoked task: %s"
            request_log.info(text, _named(attempt), extra=fields_of(attempt))
        else:
            super().declined(attempt)

    def refused(self, attempt: Attempt) -> None:
        if attempt.decision is None or not isinstance(attempt.decision.error, TaskNotFound):
            super().refused(attempt)
            return
        consumer_log.error(
            "Received unregistered task of type %r.\n%s is dead-lettered: %s",
            attempt.message.task,
            _named(attempt),
            attempt.decision.error,
            extra=fields_of(attempt),
        )


def say_stopping(how: str) -> None:
    """Print how the worker stops, as Celery's does, which has it in no log."""
    if sys.__stdout__ is not None:
        print(f"\nworker: {how} shutdown (MainProcess)", file=sys.__stdout__, flush=True)


def _named(attempt: Attempt) -> str:
    message = attempt.message
    return f"{message.shadow or message.task}[{message.id}]"
