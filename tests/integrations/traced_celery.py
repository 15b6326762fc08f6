"""A Celery worker that OpenTelemetry's own instrumentation traces; it prints each span as a line of JSON.

``TRACED`` in the environment has the broker's URL, the queue, and the queue that its task ``step`` sends the task
``final`` to. Run as a program it is Celery's own worker; celeriac runs it as a module.
"""

import json
import os

from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

broker, queue, following = os.environ["TRACED"].split()


class Printing(SpanExporter):
    """Prints spans."""

    def export(self, spans):
        for span in spans:
            parent = span.parent.span_id if span.parent is not None else 0
            facts = [span.name, span.context.trace_id, span.context.span_id, parent]
            print("SPAN", json.dumps(facts), flush=True)
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Printing()))
trace.set_tracer_provider(provider)
CeleryInstrumentor().instrument()

app = Celery("traced", broker=broker)
app.conf.update(task_default_queue=queue, worker_hijack_root_logger=False, worker_redirect_stdouts=False)


@app.task(name="step")
def step():
    app.send_task("final", queue=following)


if __name__ == "__main__":
    app.worker_main(
        ["worker", "-P", "solo", "-Q", queue, "-l", "info", "--without-gossip", "--without-mingle"]
    )
