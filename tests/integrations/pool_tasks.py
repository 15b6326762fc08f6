"""A traced app whose tasks run in child processes; they return what a child sees of its trace."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celeriac import Celeriac, Context, Listener
from celeriac.integrations.opentelemetry import instrument

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
app = Celeriac("traced", "memory://", "memory://")
instrument(app, tracer_provider=provider)


@contextmanager
def failing(carried: Mapping[str, str]) -> Iterator[None]:
    """Fail at the end."""
    yield
    raise ValueError("no")


class Failing(Listener):
    """A listener whose part in the child fails."""

    around_body = staticmethod(failing)


app.listen(Failing())


@app.task(name="inside")
def inside(ctx: Context) -> dict[str, Any]:
    """Return the trace and parent of a span that is made here, and the fields of the log."""
    exporter.clear()
    with provider.get_tracer("test").start_as_current_span("inner"):
        pass
    (inner,) = exporter.get_finished_spans()
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(trace_id)s %(span_id)s"))
    ctx.logger.logger.addHandler(handler)
    ctx.logger.warning("x")
    ctx.logger.logger.removeHandler(handler)
    return {
        "trace": trace.format_trace_id(inner.context.trace_id) if inner.context else "",
        "parent": trace.format_span_id(inner.parent.span_id) if inner.parent else "",
        "log": lines.getvalue().strip(),
    }
