"""Traces and errors by Sentry, as its integration of Celery sends them, so that rules and boards for those match.

Rules: nothing happens where sentry-sdk is not set up. The headers are written flat and inside the header ``headers``,
from which Sentry's integration of Celery continues, and read from either. A message that carries a trace keeps it. What
Sentry's integration of Celery traces is not traced a second time. The check-ins of one slot bear one id, which follows
from the slot, so that several processes that report a run report the same check-in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import sentry_sdk

from celeriac.client.periodic import SLOT_HEADER
from celeriac.client.send_listeners import Done, Outgoing, SendListener, Tick
from celeriac.integrations.sentry_monitors import Monitors, end_run
from celeriac.wire.preview import preview
from celeriac.wire.result import FAILURE, RETRY, REVOKED
from celeriac.worker.attempt import Attempt
from celeriac.worker.listeners import Listener

TASK, CARRIED_BAGGAGE = "sentry-task-id", "sentry-baggage"
"""What a context carries to a process of the pool, besides ``TRACE``; others may carry a baggage of their own."""

TRACE, BAGGAGE, ENQUEUED = "sentry-trace", "baggage", "sentry-task-enqueued-time"

SUBMIT, RUN = "queue.submit.celery", "queue.task.celery"
"""Sentry's names of the operations of Celery."""

ORIGIN = "auto.queue.celeriac"

_STATUS = {FAILURE: "internal_error", RETRY: "aborted", REVOKED: "cancelled"}
_RUN: ContextVar[_Run | None] = ContextVar("celeriac_sentry_run", default=None)


def instrument(
    app: Any,
    *,
    arguments: bool = False,
    monitor_beat_tasks: bool = False,
    exclude_beat_tasks: Sequence[str] = (),
) -> None:
    """Report to Sentry what an app sends and runs, from now on; a second call changes nothing.

    :param app: a ``Celeriac``.
    :param arguments: whether events have the arguments of the tasks; by default only where ``send_default_pii`` is set.
    :param monitor_beat_tasks: whether each periodic task has a cron monitor, as in Sentry's integration of Celery.
    :param exclude_beat_tasks: regular expressions of the names of periodic tasks that have none.
    """
    if not any(isinstance(one, Reporting) for one in app.attachments.listeners):
        monitors = Monitors(exclude_beat_tasks) if monitor_beat_tasks else None
        app.listen(Reporting(arguments=arguments, monitors=monitors))


@contextmanager
def continued(carried: Mapping[str, str]) -> Iterator[None]:
    """Let what is reported from the block, in a process of the pool, belong to the transaction of its run."""
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        if TASK in carried:
            scope.set_tag("celery_task_id", carried[TASK])
        trace = {TRACE: carried.get(TRACE, ""), BAGGAGE: carried.get(CARRIED_BAGGAGE, "")}
        sentry_sdk.continue_trace({name: text for name, text in trace.items() if text})
        yield


class Reporting(Listener, SendListener):
    """Reports one app.

    :param monitors: the cron monitors of its periodic tasks; ``None`` for none.
    """

    around_body = staticmethod(continued)

    def __init__(self, *, arguments: bool = False, monitors: Monitors | None = None) -> None:
        self._arguments = arguments
        self._monitors = monitors

    def sending(self, batch: Sequence[Outgoing]) -> Done | None:
        client = sentry_sdk.get_client()
        if not client.is_active():
            return None
        first = batch[0]
        in_transaction = sentry_sdk.get_current_span() is not None
        span = (
            sentry_sdk.start_span(op=SUBMIT, name=first.message.task, origin=ORIGIN)
            if in_transaction
            else None
        )
        if span is not None:
            span.set_data("messaging.destination.name", first.queue)
            span.set_data("messaging.message.id", first.message.id)
        with ExitStack() as scopes:
            if SLOT_HEADER in first.message.headers:  # each run of a periodic task begins a trace
                scopes.enter_context(sentry_sdk.isolation_scope()).set_new_propagation_context()
            trace = sentry_sdk.get_traceparent() if span is None else span.to_traceparent()
            headers = {TRACE: trace, BAGGAGE: sentry_sdk.get_baggage()}
        for outgoing in batch:
            _write(outgoing, {name: text for name, text in headers.items() if text})

        def done(error: BaseException | None) -> None:
            if span is not None:
                span.set_status("ok" if error is None else "internal_error")
                span.finish()

        return done

    def ticking(self, tick: Tick) -> Mapping[str, Any] | None:
        return None if self._monitors is None else self._monitors.headers(tick)

    def ticked(self, tick: Tick) -> None:
        if self._monitors is not None:
            self._monitors.begin(tick)

    def started(self, attempt: Attempt) -> None:
        client = sentry_sdk.get_client()
        if not client.is_active() or _is_traced_by_celery(attempt):
            return
        message = attempt.message
        until_the_end = ExitStack()
        scope = until_the_end.enter_context(sentry_sdk.isolation_scope())
        scope.clear_breadcrumbs()
        scope.set_tag("celery_task_id", message.id)
        scope.set_extra("celery-job", self._job(attempt, client.options))
        transaction = sentry_sdk.continue_trace(
            _carried(message.headers), op=RUN, name=message.task, source="task", origin=ORIGIN
        )
        until_the_end.enter_context(sentry_sdk.start_transaction(transaction))
        transaction.set_data("messaging.destination.name", attempt.queue)
        transaction.set_data("messaging.message.id", message.id)
        transaction.set_data("messaging.message.retry.count", message.retries)
        if (latency := _latency(message.headers)) is not None:
            transaction.set_data("messaging.message.receive.latency", latency)
        _RUN.set(_Run(transaction, until_the_end))
        if attempt.context is not None:
            own = {TRACE: transaction.to_traceparent(), TASK: message.id}
            if baggage := sentry_sdk.get_baggage():
                own[CARRIED_BAGGAGE] = baggage
            attempt.context.carried = {**attempt.context.carried, **own}

    def ended(self, attempt: Attempt) -> None:
        run, decision = _RUN.get(), attempt.decision
        if run is None or decision is None:
            return
        run.transaction.set_status(_STATUS.get(decision.state or "", "ok"))
        if decision.state == FAILURE and decision.error is not None:
            sentry_sdk.capture_exception(decision.error)
        end_run(attempt.message.headers, decision.state)
        _end(run)

    def declined(self, attempt: Attempt) -> None:
        if attempt.decision is not None:
            end_run(attempt.message.headers, attempt.decision.state)

    def refused(self, attempt: Attempt) -> None:
        end_run(attempt.message.headers, FAILURE)

    def failed(self, attempt: Attempt, error: Exception) -> None:
        self._fail(error)

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self._fail(None)

    def _fail(self, error: Exception | None) -> None:
        if (run := _RUN.get()) is not None:
            run.transaction.set_status("internal_error" if error is not None else "aborted")
            if error is not None:
                sentry_sdk.capture_exception(error)
            _end(run)

    def _job(self, attempt: Attempt, options: Mapping[str, Any]) -> dict[str, Any]:
        message = attempt.message
        job: dict[str, Any] = {"task_name": message.task}
        if self._arguments or options.get("send_default_pii"):
            job |= {"args": preview(tuple(message.args)), "kwargs": preview(message.kwargs)}
        return job


class _Run:
    """What Sentry has open for the run that this asyncio task is for."""

    __slots__ = ("transaction", "until_the_end")

    def __init__(self, transaction: Any, until_the_end: ExitStack) -> None:
        self.transaction = transaction
        self.until_the_end = until_the_end


def _end(run: _Run) -> None:
    _RUN.set(None)
    run.until_the_end.close()


def _write(outgoing: Outgoing, headers: Mapping[str, str]) -> None:
    """Add Sentry's headers to a message, flat and nested, unless it carries a trace already; its time is set anew."""
    carried = outgoing.message.headers
    added: dict[str, Any] = {ENQUEUED: time.time()}
    if TRACE not in carried:
        other = outgoing.headers.get(BAGGAGE) or carried.get(BAGGAGE)
        added |= headers
        if isinstance(other, str) and BAGGAGE in headers:
            added[BAGGAGE] = f"{other},{headers[BAGGAGE]}"
    nested = carried.get("headers")
    outgoing.headers |= {
        **added,
        "headers": {**(nested if isinstance(nested, dict) else {}), **added},
    }


def _carried(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a trace, flat or nested."""
    nested = headers.get("headers")
    for carrier in (headers, nested if isinstance(nested, dict) else {}):
        if isinstance(carrier.get(TRACE), str):
            return {name: carrier[name] for name in (TRACE, BAGGAGE) if isinstance(carrier.get(name), str)}
    return {}


def _latency(headers: Mapping[str, Any]) -> float | None:
    """Return the milliseconds that a message waited, where it says when it was sent."""
    sent = headers.get(ENQUEUED)
    if isinstance(sent, bool) or not isinstance(sent, int | float):
        return None
    return max(0.0, (time.time() - sent) * 1000)


def _is_traced_by_celery(attempt: Attempt) -> bool:
    if attempt.task is None or not attempt.task.conduct.concludes:
        return False
    # The class is compared by its name, since importing it would patch Celery.
    return "celery" in sentry_sdk.get_client().integrations
