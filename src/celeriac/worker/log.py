"""Tells the log what becomes of each task.

Rules: a line costs nothing when its level is off; every line about a task carries its id and name, in the text and
as record attributes ``task_id`` and ``task_name``.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import perf_counter

from celeriac.wire.result import FAILURE, RETRY, REVOKED, SUCCESS
from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Settle
from celeriac.worker.listeners import Listener

logger = logging.getLogger("celeriac.worker")


class Log(Listener):
    """Writes a line for what happens to each message."""

    def started(self, attempt: Attempt) -> None:
        # A body that decides its own ending tells of its beginning, too.
        if attempt.conclusion is None and logger.isEnabledFor(logging.INFO):
            _log(logging.INFO, attempt, "%s[%s] started")

    def ended(self, attempt: Attempt) -> None:
        decision = attempt.decision
        assert decision is not None
        if attempt.conclusion is not None and attempt.is_concluded:
            return  # the body has said it
        if decision.state == SUCCESS:
            if logger.isEnabledFor(logging.INFO):
                seconds = perf_counter() - attempt.started
                _log(logging.INFO, attempt, "%s[%s] succeeded in %.3f s", seconds)
        elif decision.state == RETRY:
            _log(logging.WARNING, attempt, "%s[%s] will be retried, %s", decision.reason)
        elif decision.state == FAILURE:
            _log(logging.ERROR, attempt, "%s[%s] failed: %s", decision.reason, error=decision.error)
        elif decision.settle in (Settle.REQUEUE, Settle.PARK):
            level = logging.WARNING if decision.until else logging.INFO
            _log(level, attempt, "%s[%s] put back on the queue: %s", decision.reason)
        else:
            _log(logging.INFO, attempt, "%s[%s] ignored")

    def parked(self, attempt: Attempt) -> None:
        if attempt.decision is not None and logger.isEnabledFor(logging.INFO):
            due = datetime.fromtimestamp(attempt.decision.until, UTC).isoformat(timespec="milliseconds")
            _log(logging.INFO, attempt, "%s[%s] is due at %s", due)

    def declined(self, attempt: Attempt) -> None:
        assert attempt.decision is not None
        if attempt.decision.state == REVOKED:
            _log(logging.WARNING, attempt, "%s[%s] not run: %s", attempt.decision.reason)
        else:
            logger.info("queue %s: %s of a message is dropped", attempt.queue, attempt.decision.reason)

    def refused(self, attempt: Attempt) -> None:
        assert attempt.decision is not None
        message, error = attempt.message, attempt.decision.error
        logger.error(
            "queue %s: a message (task %s, id %s) was refused and dead-lettered: %s: %s",
            attempt.queue,
            message.task or "unknown",
            message.id or "unknown",
            type(error).__name__,
            error,
            extra={"task_id": message.id or None, "task_name": message.task or None},
        )

    def failed(self, attempt: Attempt, error: Exception) -> None:
        text = "queue %s: the worker failed on a message, which is dead-lettered"
        logger.error(text, attempt.queue, exc_info=error)

    def lost(self, attempt: Attempt, error: Exception) -> None:
        logger.warning(
            "queue %s: a message went back to the broker before it was settled: %s", attempt.queue, error
        )


def _log(level: int, attempt: Attempt, text: str, *args: object, error: BaseException | None = None) -> None:
    message = attempt.message
    name = message.shadow or message.task
    logger.log(level, text, name, message.id, *args, extra=fields_of(attempt), exc_info=error)


def fields_of(attempt: Attempt) -> dict[str, str]:
    """Return the attributes of a record about a task."""
    message = attempt.message
    extra = {"task_id": message.id, "task_name": message.shadow or message.task}
    if attempt.context is not None and attempt.context.log_fields:
        extra |= attempt.context.log_fields
    return extra
