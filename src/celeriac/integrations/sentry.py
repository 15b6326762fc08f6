"""Traces and errors by Sentry, as its integration of Celery sends them, so that rules and boards for those match.

Rules: nothing happens where sentry-sdk is not set up. The headers are written flat and inside the header ``headers``,
from which Sentry's integration of Celery continues, and read from either. A message that carries a trace keeps it. What
Sentry's integration of Celery traces is not traced a second time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import sentry_sdk

from celeriac.client.send_listeners import Done, Outgoing, SendListener
from celeriac.wire.preview import preview
from celeriac.wire.result import FAILURE, RETRY, REVOKED
from celeriac.worker.attempt import Attempt
from celeriac.worker.listeners import Listener

TRACE, BAGGAGE, ENQUEUED = "sentry-trace", "baggage", "sentry-task-enqueued-time"

SUBMIT, RUN = "queue.submit.celery", "queue.task.celery"
"""Sentry's names of the operations of Celery."""

ORIGIN = "auto.queue.celeriac"

_STATUS = {FAILURE: "internal_error", RETRY: "aborted", REVOKED: "cancelled"}
_RUN: ContextVar[_Run | None] = ContextVar("celeriac_sentry_run", default=None)


def instrument(app: Any, *, arguments: bool = False) -> None:
    """Report to Sentry what an app sends and runs, from now on; a second call changes nothing.

    :param app: a ``Celeriac``.
    :param arguments: whether events have the arguments of the tasks; by default only where ``send_default_pii`` is set.
    """
    if not any(isinstance(one, Reporting) for one in app.attachments.listeners):
        app.listen(Reporting(arguments=arguments))


class Reporting(Listener, SendListener):
    """Reports one app."""

    def __init__(self, *, arguments: bool = False) -> None:
        self._arguments = arguments

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
        trace = sentry_sdk.get_traceparent() if span is None else span.to_traceparent()
        headers = {TRACE: trace, BAGGAGE: sentry_sdk.get_baggage()}
        for outgoing in batch:
            _write(outgoing, {name: text for name, text in headers.items() if text})

        def done(error: BaseException | None) -> None:
            if span is not None:
                span.set_status("ok" if error is None else "internal_error")
                span.finish()

        return done

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

    def ended(self, attempt: Attempt) -> None:
        run, decision = _RUN.get(), attempt.decision
        if run is None or decision is None:
            return
        run.transaction.set_status(_STATUS.get(decision.state or "", "ok"))
        if decision.state == FAILURE and decision.error is not None:
            sentry_sdk.capture_exception(decision.error)
        _end(run)

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
    # Its class is asked for by name: to import it would patch Celery.
    return "celery" in sentry_sdk.get_client().integrations
