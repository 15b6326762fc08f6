"""Tells the log what becomes of each task.

Rules: a line costs nothing when its level is off; every line about a task carries its id and name, in the text and
as record attributes ``task_id`` and ``task_name``.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import perf_counter

from celeriac.wire.result import FAILURE, RETRY, SUCCESS
from celeriac.wire.task import TaskMessage
from celeriac.worker.admission import Refuse
from celeriac.worker.attempt import Attempt
from celeriac.worker.outcome import Decision, Settle
from celeriac.worker.tally import Tally

logger = logging.getLogger("celeriac.worker")


class Announcer:
    """Counts endings and logs them."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def ended(self, attempt: Attempt, decision: Decision) -> None:
        """An attempt is over and settled."""
        self._tally.ended[decision.state or "IGNORED"] += 1
        message = attempt.message
        if decision.state == SUCCESS:
            if logger.isEnabledFor(logging.INFO):
                seconds = perf_counter() - attempt.started
                self._log(logging.INFO, message, "%s[%s] succeeded in %.3f s", seconds)
        elif decision.state == RETRY:
            self._log(logging.WARNING, message, "%s[%s] will be retried, %s", decision.reason)
        elif decision.state == FAILURE:
            self._log(logging.ERROR, message, "%s[%s] failed: %s", decision.reason, error=decision.error)
        elif decision.settle is Settle.REQUEUE:
            self._log(logging.INFO, message, "%s[%s] put back on the queue: %s", decision.reason)
        else:
            self._log(logging.INFO, message, "%s[%s] ignored")

    def held(self, message: TaskMessage, until: float) -> None:
        """A message waits with the broker for its ETA."""
        self._tally.held += 1
        if logger.isEnabledFor(logging.INFO):
            due = datetime.fromtimestamp(until, UTC).isoformat(timespec="milliseconds")
            self._log(logging.INFO, message, "%s[%s] is due at %s", due)

    def discarded(self, message: TaskMessage, reason: str) -> None:
        """A message was not run."""
        self._tally.ended["REVOKED"] += 1
        self._log(logging.WARNING, message, "%s[%s] not run: %s", reason)

    def refused(self, refusal: Refuse, queue: str) -> None:
        """A message was set aside."""
        self._tally.refused += 1
        logger.error(
            "queue %s: a message (task %s, id %s) was refused and dead-lettered: %s: %s",
            queue,
            refusal.task or "unknown",
            refusal.id or "unknown",
            type(refusal.error).__name__,
            refusal.error,
            extra={"task_id": refusal.id, "task_name": refusal.task},
        )

    def lost(self, queue: str, error: Exception) -> None:
        """A receipt was void when its message was to be settled."""
        self._tally.lost += 1
        logger.warning("queue %s: a message went back to the broker before it was settled: %s", queue, error)

    def _log(
        self, level: int, message: TaskMessage, text: str, *args: object, error: BaseException | None = None
    ) -> None:
        name = message.shadow or message.task
        extra = {"task_id": message.id, "task_name": name}
        logger.log(level, text, name, message.id, *args, extra=extra, exc_info=error)
