"""OpenTelemetry's own instrumentation of Celery sees in celeriac's worker what it sees in Celery's: one trace."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.celery_app import traced_app
from tests.celery_app.conftest import ROOT, START, TIMEOUT
from tests.celery_connections import disconnect
from tests.lines import whole_lines
from tests.servers import LoggedProcess, RedisServer

pytestmark = pytest.mark.timeout(180)  # a worker, and its processes, start within the first test

APP = "tests.celery_app.traced_app"
WORKERS: Mapping[str, Sequence[str]] = {
    "celery": ("celery", "-A", APP, "worker", "-P", "prefork", "-c", "1", "-l", "info"),
    "processes": ("celeriac", "worker", "-A", APP, "-P", "processes", "-c", "1"),
    "threads": ("celeriac", "worker", "-A", APP, "-P", "threads", "-c", "1"),
}

Span = dict[str, Any]


class Traced:
    """The spans of this process, which sends, and of a worker."""

    def __init__(self, worker: str, sent: InMemorySpanExporter, file: Path) -> None:
        self.worker = worker
        self._sent = sent
        self._file = file

    def trace_of(self, task_id: str, count: int) -> list[Span]:
        """Return the spans of the trace that begins where that task was sent, as soon as there are that many."""
        (first,) = [one for one in self._here() if one["attributes"]["messaging.message.id"] == task_id]
        deadline = time.monotonic() + TIMEOUT
        while True:
            spans = [one for one in (*self._here(), *self._there()) if one["trace"] == first["trace"]]
            if len(spans) >= count:
                return spans
            assert time.monotonic() < deadline, (first, self._there())
            time.sleep(0.02)

    def _here(self) -> list[Span]:
        return [traced_app.facts_of(span) for span in self._sent.get_finished_spans()]

    def _there(self) -> list[Span]:
        return [json.loads(line) for line in whole_lines(self._file)]


@pytest.fixture(scope="module", params=sorted(WORKERS))
def traced(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traced]:
    url, queue = redis_server.url(), f"traced-{os.getpid()}-{time.monotonic_ns()}"
    file = tmp_path_factory.mktemp("traced") / "spans"
    traced_app.app.conf.update(broker_url=url, result_backend=url, task_default_queue=queue)
    variables = {
        "TRACED_BROKER": url,
        "TRACED_QUEUE": queue,
        "TRACED_FILE": str(file),
        "C_FORCE_ROOT": "1",
    }
    command = [sys.executable, "-m", *WORKERS[request.param]]
    worker = LoggedProcess(command, env={**os.environ, **variables}, cwd=ROOT)
    worker.wait_for(" ready", timeout=START)
    sent, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    instrumentor = CeleryInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield Traced(request.param, sent, file)
    instrumentor.uninstrument()
    worker.kill()
    disconnect(traced_app.app)


def edges(spans: Sequence[Span]) -> set[tuple[str | None, str, str]]:
    """Return the name of each span's parent with the name and the kind of the span."""
    names = {span["id"]: span["name"] for span in spans}
    return {(names.get(span["parent"]), span["name"], span["kind"]) for span in spans}


def test_a_run_follows_its_sending(traced: Traced):
    sent = traced_app.add.delay(1, 2)
    assert sent.get(timeout=TIMEOUT) == 3
    spans = traced.trace_of(sent.id, 2)
    assert edges(spans) == {
        (None, "apply_async/add", "PRODUCER"),
        ("apply_async/add", "run/add", "CONSUMER"),
    }
    (run,) = [span for span in spans if span["kind"] == "CONSUMER"]
    attributes = run["attributes"]
    assert (attributes["celery.action"], attributes["celery.state"]) == ("run", "SUCCESS")
    assert attributes["celery.task_name"] == f"{APP}.add"
    assert attributes["messaging.message.id"] == sent.id
    assert run["status"] == "UNSET"


def test_a_failure_is_told_in_the_span_of_its_run(traced: Traced):
    sent = traced_app.fail.delay()
    with pytest.raises(ValueError, match="as asked"):
        sent.get(timeout=TIMEOUT)
    (run,) = [span for span in traced.trace_of(sent.id, 2) if span["kind"] == "CONSUMER"]
    assert (run["status"], run["events"]) == ("ERROR", [["exception", "ValueError"]])


def test_a_retry_and_what_a_task_sends_are_in_its_trace(traced: Traced):
    sent = traced_app.again.delay()
    assert sent.get(timeout=TIMEOUT)
    spans = traced.trace_of(sent.id, 6)
    assert edges(spans) == {
        (None, "apply_async/again", "PRODUCER"),
        ("apply_async/again", "run/again", "CONSUMER"),
        ("run/again", "apply_async/again", "PRODUCER"),
        ("run/again", "apply_async/add", "PRODUCER"),
        ("apply_async/add", "run/add", "CONSUMER"),
    }
    runs = [span for span in spans if span["name"] == "run/again"]
    reasons = [run["attributes"].get("celery.retry.reason") for run in runs]
    assert sorted(map(bool, reasons)) == [False, True]


def test_the_steps_of_a_chain_are_in_one_trace(traced: Traced):
    last = chain(traced_app.add.s(1, 2), traced_app.add.s(3)).apply_async()
    assert last.get(timeout=TIMEOUT) == 6
    spans = traced.trace_of(last.parent.id, 4)
    assert edges(spans) == {
        (None, "apply_async/add", "PRODUCER"),
        ("apply_async/add", "run/add", "CONSUMER"),
        ("run/add", "apply_async/add", "PRODUCER"),
    }


def test_the_body_of_a_chord_is_in_the_trace_of_a_part(traced: Traced):
    body = chord([traced_app.add.s(1, 2)])(traced_app.total.s())
    assert body.get(timeout=TIMEOUT) == 3
    (part,) = body.parent.children
    if traced.worker == "processes":  # the main process sends it, where this instrumentation is not at work
        sending = {("run/add", "run/total", "CONSUMER")}
    else:
        sending = {
            ("run/add", "apply_async/total", "PRODUCER"),
            ("apply_async/total", "run/total", "CONSUMER"),
        }
    first = {(None, "apply_async/add", "PRODUCER"), ("apply_async/add", "run/add", "CONSUMER")}
    assert edges(traced.trace_of(part.id, len(first | sending))) == first | sending
