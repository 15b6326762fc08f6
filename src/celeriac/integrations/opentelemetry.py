"""Traces and metrics by OpenTelemetry: a span for each sending and each run, in one tree with Celery's.

Rules: only the API is needed; what is done with spans is the user's choice. The context lies flat in the headers, as
opentelemetry-instrumentation-celery has it. A message that carries a context keeps it: a retry is a sibling of the run
before, and what the instrumentation of Celery traces is not traced twice. A context that cannot be read is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from time import perf_counter
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from celeriac.client.app import App
from celeriac.client.send_listeners import Done, Outgoing, SendListener
from celeriac.servers.url_parts import scheme_of, take_apart
from celeriac.wire.envelope import Envelope
from celeriac.wire.result import FAILURE, RETRY
from celeriac.worker.attempt import Attempt
from celeriac.worker.listeners import Listener

SYSTEMS = {
    "postgres": "postgresql",
    "sentinel": "redis",
    "valkey": "redis",
    "pyamqp": "rabbitmq",
    "redis": "redis",
    "amqp": "rabbitmq",
    "sqlite": "celeriac_sqlite",
    "memory": "celeriac_memory",
}
"""The attribute ``messaging.system`` by what the scheme of the broker's URL begins with."""

LONGEST = 8192
"""Characters of a header that may be a context."""

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"

_RUN: ContextVar[_Run | None] = ContextVar("celeriac_otel_run", default=None)


def instrument(
    app: Any,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    links: bool = False,
) -> None:
    """Trace what an app sends and runs, from now on; a second call changes nothing.

    :param app: a ``Celeriac``.
    :param tracer_provider: in place of the global one.
    :param meter_provider: in place of the global one.
    :param links: begin a trace of its own with each run, and link it to the sender's, in place of continuing that.
    """
    if not any(isinstance(one, Tracing) for one in app.attachments.listeners):
        app.listen(Tracing(app, tracer_provider, meter_provider, links=links))


@contextmanager
def continued(carried: Mapping[str, str]) -> Iterator[None]:
    """Let what is traced in the block, in a process of the pool, belong to the span of its run."""
    token = contexts.attach(propagate.extract(carried, Context()))
    try:
        yield
    finally:
        contexts.detach(token)


class Tracing(Listener, SendListener):
    """Makes the spans of one app."""

    around_body = staticmethod(continued)

    def __init__(
        self,
        app: App,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        links: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer("celeriac", version("celeriac"), tracer_provider)
        self._links = links
        self._old_names = "messaging/dup" in os.environ.get(OPT_IN, "").replace(" ", "").split(",")
        self._place = _place(app)
        meter = metrics.get_meter("celeriac", version("celeriac"), meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Messages that were sent."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Messages that were taken."
        )
        self._sending = meter.create_histogram(
            "messaging.client.operation.duration", "s", "How long sending took."
        )
        self._processing = meter.create_histogram("messaging.process.duration", "s", "How long a run took.")

    # --- sending

    def sending(self, batch: Sequence[Outgoing]) -> Done | None:
        fresh = [outgoing for outgoing in batch if not _carries_context(outgoing.message.headers)]
        if not fresh:
            return None
        span = self._span_of_one(fresh[0]) if len(fresh) == 1 else self._span_of_many(fresh)
        began, attributes = perf_counter(), self._counted("send", fresh[0].queue)

        def done(error: BaseException | None) -> None:
            if error is None:
                self._sent.add(len(fresh), attributes)
            else:
                _fail(span, error)
            failed = {} if error is None else {"error.type": type(error).__name__}
            self._sending.record(perf_counter() - began, {**attributes, **failed})
            span.end()

        return done

    def _span_of_one(self, outgoing: Outgoing) -> Span:
        span = self._tracer.start_span(
            f"send {outgoing.queue}", kind=SpanKind.PRODUCER, attributes=self._of_outgoing("send", outgoing)
        )
        propagate.inject(outgoing.headers, trace.set_span_in_context(span))
        return span

    def _span_of_many(self, batch: Sequence[Outgoing]) -> Span:
        """Make a context for each message, and one span that sends all of them and links to each."""
        created = []
        for outgoing in batch:
            span = self._tracer.start_span(
                f"create {outgoing.queue}",
                kind=SpanKind.PRODUCER,
                attributes=self._of_outgoing("create", outgoing),
            )
            propagate.inject(outgoing.headers, trace.set_span_in_context(span))
            span.end()
            created.append(Link(span.get_span_context()))
        attributes = {**self._attributes("send", batch[0].queue), "messaging.batch.message_count": len(batch)}
        return self._tracer.start_span(
            f"send {batch[0].queue}", kind=SpanKind.CLIENT, links=created, attributes=attributes
        )

    # --- running

    def received(self, attempt: Attempt) -> None:
        self._consumed.add(1, self._counted("receive", attempt.queue))

    def started(self, attempt: Attempt) -> None:
        if is_traced_by_celery(attempt):
            return
        parent = _extracted(attempt.message.headers)
        links, base = None, parent
        if self._links:
            origin = trace.get_current_span(parent).get_span_context()
            links, base = ([Link(origin)] if origin.is_valid else None), Context()
        span = self._tracer.start_span(
            f"process {attempt.queue}",
            context=base,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes=self._of_attempt(attempt),
        )
        # The attempt has an asyncio task, and so context variables, of its own: nothing has to be detached.
        around = trace.set_span_in_context(span, base)
        contexts.attach(around)
        _RUN.set(_Run(span, perf_counter()))
        _mark(attempt, span, around)

    def ended(self, attempt: Attempt) -> None:
        run, decision = _RUN.get(), attempt.decision
        if run is None or decision is None:
            return
        attributes = self._counted("process", attempt.queue)
        if decision.state == RETRY:
            run.span.set_attribute("celery.retry.reason", decision.reason)
        elif decision.state == FAILURE and decision.error is not None:
            attributes = {**attributes, "error.type": type(decision.error).__name__}
            _fail(run.span, decision.error)
        self._end(run, attributes)

    def failed(self, attempt: Attempt, error: Exception) -> None:
        self._end_with(attempt, error)

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self._end_with(attempt, error)

    def _end_with(self, attempt: Attempt, error: Exception) -> None:
        if (run := _RUN.get()) is not None:
            _fail(run.span, error)
            failed = {"error.type": type(error).__name__}
            self._end(run, {**self._counted("process", attempt.queue), **failed})

    def _end(self, run: _Run, attributes: Mapping[str, Any]) -> None:
        self._processing.record(perf_counter() - run.began, attributes)
        run.span.end()
        _RUN.set(None)

    # --- attributes

    def _of_outgoing(self, operation: str, outgoing: Outgoing) -> dict[str, Any]:
        return {
            **self._attributes(operation, outgoing.queue),
            "messaging.message.id": outgoing.message.id,
            "celery.action": "apply_async",
            "celery.task_name": outgoing.message.task,
        }

    def _of_attempt(self, attempt: Attempt) -> dict[str, Any]:
        envelope = attempt.delivery.envelope
        size = len(envelope.body) if isinstance(envelope, Envelope) else 0
        attributes = {
            **self._attributes("process", attempt.queue),
            "messaging.message.id": attempt.message.id,
            "messaging.message.body.size": size,
            "celery.action": "run",
            "celery.task_name": attempt.message.task,
        }
        if self._old_names:
            attributes["messaging.message_payload_size_bytes"] = size
        return attributes

    def _attributes(self, operation: str, queue: str) -> dict[str, Any]:
        attributes = {
            **self._place,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": queue,
        }
        if self._old_names:
            attributes |= {
                "messaging.operation": operation,
                "messaging.destination": queue,
                "messaging.destination_kind": "queue",
            }
        return attributes

    def _counted(self, operation: str, queue: str) -> dict[str, Any]:
        """Return the attributes of a metric, of which there are few values."""
        return {
            **self._place,
            "messaging.operation.name": operation,
            "messaging.destination.name": queue,
        }


class _Run:
    """The span of the run that this asyncio task is for."""

    __slots__ = ("began", "span")

    def __init__(self, span: Span, began: float) -> None:
        self.span = span
        self.began = began


def is_traced_by_celery(attempt: Attempt) -> bool:
    """Whether the run is one of Celery's own tracer, and the instrumentation of Celery is at work in this process."""
    if attempt.task is None or not attempt.task.conduct.concludes:
        return False
    module = sys.modules.get("opentelemetry.instrumentation.celery")
    return module is not None and bool(module.CeleryInstrumentor().is_instrumented_by_opentelemetry)


def _carries_context(headers: Mapping[str, Any]) -> bool:
    return any(field in headers for field in propagate.get_global_textmap().fields if field != "baggage")


def _extracted(headers: Mapping[str, Any]) -> Context:
    """Return the context that a message carries, flat or nested as Sentry writes it; else an empty one."""
    nested = headers.get("headers")
    for carrier in (headers, nested if isinstance(nested, dict) else {}):
        if _carries_context(carrier):
            texts = {
                name: value
                for name, value in carrier.items()
                if isinstance(name, str) and isinstance(value, str) and len(value) <= LONGEST
            }
            return propagate.extract(texts, Context())
    return Context()


def _fail(span: Span, error: BaseException) -> None:
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _mark(attempt: Attempt, span: Span, around: Context) -> None:
    """Let the task's lines in the log carry the trace's ids, and a process of the pool its context."""
    context = span.get_span_context()
    if attempt.context is not None and context.is_valid:
        carried: dict[str, str] = {}
        propagate.inject(carried, around)
        attempt.context.carried = {**attempt.context.carried, **carried}
        attempt.context.log_fields = {
            "trace_id": trace.format_trace_id(context.trace_id),
            "span_id": trace.format_span_id(context.span_id),
        }


def _place(app: App) -> dict[str, Any]:
    """Return the attributes that say which broker it is; no user, no password."""
    scheme = scheme_of(app.broker_url)
    system = next(
        (system for begin, system in SYSTEMS.items() if scheme.startswith(begin)), scheme or "unknown"
    )
    place: dict[str, Any] = {"messaging.system": system}
    if system in ("redis", "rabbitmq"):
        where = take_apart(app.broker_url)[0]
        if where.host:
            place["server.address"] = where.host
        if where.port:
            place["server.port"] = where.port
    return place
