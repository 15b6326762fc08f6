"""A Celery app with OpenTelemetry's own instrumentation of Celery; the worker's spans go to a file, a line a span."""

import json
import os

from celery import Celery, signals
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

app = Celery("traced", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("TRACED_BROKER"),
    result_backend=os.environ.get("TRACED_BROKER"),
    task_default_queue=os.environ.get("TRACED_QUEUE", "traced"),
)


class ToFile(SpanExporter):
    """Writes spans down."""

    def export(self, spans):
        with open(os.environ["TRACED_FILE"], "a") as file:  # noqa: PTH123 - opened to append lines
            file.writelines(json.dumps(facts_of(span)) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def facts_of(span):
    """Return what tests look at in a span."""
    return {
        "name": span.name.replace(f"{__name__}.", ""),
        "kind": span.kind.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent and span.parent.span_id,
        "status": span.status.status_code.name,
        "events": [[event.name, event.attributes["exception.type"]] for event in span.events],
        "attributes": dict(span.attributes),
    }


def trace(**_):
    """Set the instrumentation up when a process that runs tasks starts, as its documentation says."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    CeleryInstrumentor().instrument(tracer_provider=provider)


if "TRACED_FILE" in os.environ:
    signals.worker_process_init.connect(trace, weak=False)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0, exc=LookupError("not yet"))
    return add.delay(1, 1).id
