"""Tells monitors what becomes of tasks, in Celery's events.

Rules: nothing here waits. While nobody listens, or the group of events is off, a task costs no more than a look at
that. An event keeps no value of a task alive, only short text. A failure is always sent, however many tasks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic, perf_counter

from celeriac.client.event_sender import EventSender
from celeriac.client.task import Task
from celeriac.context import PROGRESS
from celeriac.errors import Reject
from celeriac.wire.event import (
    TaskFailed,
    TaskProgress,
    TaskReceived,
    TaskRejected,
    TaskRetried,
    TaskRevoked,
    TaskStarted,
    TaskSucceeded,
    call_of,
    cut_traceback,
    described,
)
from celeriac.wire.failure import format_traceback, name_of
from celeriac.wire.preview import LIMIT, preview
from celeriac.wire.result import FAILURE, RETRY, REVOKED, SUCCESS, ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Decision, Returned, Settle
from celeriac.worker.events.share import Share
from celeriac.worker.listeners import Listener
from celeriac.worker.logical_clock import LogicalClock
from celeriac.worker.raised import shorten

BETWEEN_PROGRESS = 0.5
"""Seconds between two events of one task's progress."""

MOST_PROGRESSING = 1000
"""Tasks whose last progress is remembered."""


class Announcer(Listener):
    """Makes the events of the group ``task``.

    :param tasks: the app's, by name; those that want no events are asked here.
    :param now: seconds since the epoch.
    :param enabled: whether the group is on.
    :ivar processed: tasks that were started.
    """

    def __init__(
        self,
        sender: EventSender,
        tasks: Mapping[str, Task[..., object]],
        clock: LogicalClock,
        now: Callable[[], float],
        share: Share,
        enabled: bool,
    ) -> None:
        self._sender = sender
        self._tasks = tasks
        self._clock = clock
        self._now = now
        self._share = share
        self._progress: dict[str, float] = {}
        self.enabled = enabled
        self.processed = 0

    def started(self, attempt: Attempt) -> None:
        self.processed += 1
        if not (self.enabled and self._sender.wanted):
            return
        assert attempt.task is not None
        if attempt.task.options.send_events is False:
            return
        if not self._share.takes():
            attempt.left_out = True
            return
        now = self._now()
        self._tell_received(attempt, now)
        self._sender.put(TaskStarted(self._clock.forward(), now, attempt.message.id))

    def ended(self, attempt: Attempt) -> None:
        if not (self.enabled and self._sender.wanted):
            return
        message, task, decision, ending = attempt.message, attempt.task, attempt.decision, attempt.ending
        assert decision is not None
        assert task is not None
        if self._progress:
            self._progress.pop(message.id, None)
        if task.options.send_events is False or (attempt.left_out and decision.state != FAILURE):
            return
        if decision.state == SUCCESS and type(ending) is Returned:
            result = "None" if ending.value is None else preview(ending.value)
            runtime = perf_counter() - attempt.started
            self._sender.put(TaskSucceeded(self._clock.forward(), self._now(), message.id, result, runtime))
        else:
            self._tell_ended_badly(attempt, decision)

    def declined(self, attempt: Attempt) -> None:
        message, decision = attempt.message, attempt.decision
        assert decision is not None
        if decision.state == REVOKED and self._tells(message):
            now = self._now()
            self._tell_received(attempt, now)
            expired = decision.reason == "expired"
            self._sender.put(TaskRevoked(self._clock.forward(), now, message.id, False, None, expired))

    def refused(self, attempt: Attempt) -> None:
        if self._tells(attempt.message):
            self._tell_failed(attempt, self._now(), with_call=True)

    def failed(self, attempt: Attempt, error: Exception) -> None:
        message = attempt.message
        if self._tells(message):
            traceback = cut_traceback(format_traceback(error))
            clock, now = self._clock.forward(), self._now()
            event = TaskFailed(clock, now, message.id, error_text(error), traceback, *call_of(message))
            self._sender.put(event)

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self._progress.pop(attempt.message.id, None)

    def reported(self, record: ResultRecord) -> None:
        if record.status != PROGRESS or not (self.enabled and self._sender.wanted):
            return
        task = self._tasks.get(record.name or "")
        if self._share.present < 1 or (task is not None and task.options.send_events is False):
            return
        if self._is_due(record.task_id) and isinstance(meta := record.result, dict):
            message = meta.get("message")
            event = TaskProgress(
                self._clock.forward(),
                self._now(),
                record.task_id,
                meta.get("current") or 0,
                meta.get("total"),
                None if message is None else str(message)[:LIMIT],
            )
            self._sender.put(event)

    def _tell_ended_badly(self, attempt: Attempt, decision: Decision) -> None:
        id, now = attempt.message.id, self._now()
        if decision.state == FAILURE:
            if attempt.left_out:
                self._tell_received(attempt, now)
            self._tell_failed(attempt, now)
        elif decision.state == RETRY:
            text, traceback = _error_texts(attempt)
            self._sender.put(TaskRetried(self._clock.forward(), now, id, text, traceback))
        elif decision.state == REVOKED:
            self._sender.put(TaskRevoked(self._clock.forward(), now, id, True, attempt.signal, False))
        elif isinstance(decision.error, Reject):
            self._sender.put(TaskRejected(self._clock.forward(), now, id, True))

    def _tells(self, message: TaskMessage) -> bool:
        """Whether this message has events: a monitor listens, the message has an id, and its task sends events."""
        if not (self.enabled and self._sender.wanted and message.id):
            return False
        task = self._tasks.get(message.task)
        return task is None or task.options.send_events is not False

    def _is_due(self, task_id: str) -> bool:
        """Whether the last progress of the task was sent long enough ago."""
        now = monotonic()
        if now < self._progress.get(task_id, 0.0) + BETWEEN_PROGRESS:
            return False
        if len(self._progress) >= MOST_PROGRESSING:
            self._progress = {id: at for id, at in self._progress.items() if now < at + BETWEEN_PROGRESS}
        self._progress[task_id] = now
        return True

    def _tell_received(self, attempt: Attempt, now: float) -> None:
        message, envelope = attempt.message, attempt.delivery.envelope
        # In the order of the fields: looking the names up would cost as much again.
        event = TaskReceived(
            self._clock.forward(),
            now,
            *described(message),
            attempt.delivery.queue,
            getattr(envelope, "exchange", ""),
            getattr(envelope, "routing_key", ""),
        )
        self._sender.put(event)

    def _tell_failed(self, attempt: Attempt, now: float, *, with_call: bool = False) -> None:
        message, decision = attempt.message, attempt.decision
        assert decision is not None
        text, traceback = _error_texts(attempt)
        call = call_of(message) if with_call else ()
        self._sender.put(TaskFailed(self._clock.forward(), now, message.id, text, traceback, *call))
        if isinstance(decision.error, Reject):
            requeued = decision.settle is not Settle.BURY
            self._sender.put(TaskRejected(self._clock.forward(), now, message.id, requeued))


def error_text(error: BaseException) -> str:
    """Return the ``repr`` of an exception, which begins with its class, as Celery calls it: monitors read it there."""
    text, own, told = preview(error), type(error).__name__, name_of(type(error))
    if not text.startswith(own):
        return f"{told}({text})"
    return text if own == told else told + text[len(own) :]


def _error_texts(attempt: Attempt) -> tuple[str, str | None]:
    """Return the error of a decision, and its traceback where the task ran."""
    decision = attempt.decision
    assert decision is not None
    error = decision.error
    if error is None:
        return "", None
    if attempt.ending is None:
        return error_text(error), None
    stored = decision.results[0].record.traceback if decision.results else None
    return error_text(error), cut_traceback(stored or format_traceback(shorten(error)))
