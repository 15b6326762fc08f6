"""Spans of sending and running, in one trace with those of Celery."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from celeriac import Celeriac, Context, Retry, chain, chord
from celeriac.integrations.opentelemetry import OPT_IN, instrument
from tests.integrations import pool_tasks
from tests.servers import LoggedProcess, RedisServer

WAIT = 60.0
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"


class Traced:
    """An app, and the spans and metrics that it makes."""

    def __init__(self, broker: str = "memory://", queue: str = "celery", **given: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.app = Celeriac("shop", broker, broker, default_queue=queue)
        meters = MeterProvider([self.reader])
        for _ in range(2):  # the second changes nothing
            instrument(self.app, tracer_provider=self.provider, meter_provider=meters, **given)

    def spans(self, name: str) -> list[ReadableSpan]:
        """The finished spans of this name."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the spans are to show."""
        async with asyncio.timeout(WAIT):
            while not holds():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)

    def metrics(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def traced() -> Traced:
    made = Traced()

    @made.app.task(name="good")
    async def good(ctx: Context) -> int:
        ctx.logger.info("runs")
        return trace.get_current_span().get_span_context().trace_id

    @made.app.task(name="plain")
    def plain() -> int:
        return trace.get_current_span().get_span_context().trace_id

    @made.app.task(name="bad")
    async def bad() -> None:
        raise ValueError("no")

    @made.app.task(name="add")
    async def add(x: int, y: int = 1) -> int:
        return x + y

    return made


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int:
    return 0 if span.parent is None else span.parent.span_id


def one_trace(spans: tuple[ReadableSpan, ...] | list[ReadableSpan]) -> bool:
    return len({span.context.trace_id for span in spans if span.context is not None}) == 1


async def test_a_call_is_a_producer_and_a_consumer_with_their_attributes(
    traced: Traced, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "celeriac")
    async with traced.app, traced.app.worker():
        seen = await (await traced.app.send_task("good"))
        in_thread = await (await traced.app.send_task("plain"))
        await traced.until(lambda: len(traced.spans("process celery")) == 2)
    (send, other_send), (process, other) = traced.spans("send celery"), traced.spans("process celery")
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert parent_of(process) == id_of(send)
    assert process.context is not None
    assert seen == process.context.trace_id
    assert other.context is not None
    assert in_thread == other.context.trace_id
    assert parent_of(other) == id_of(other_send)
    attributes = dict(process.attributes or {})
    task_id = attributes.pop("messaging.message.id")
    size = attributes.pop("messaging.message.body.size")
    assert isinstance(size, int)
    assert size > 10
    assert attributes == {
        "messaging.system": "celeriac_memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "celery",
        "celery.action": "run",
        "celery.task_name": "good",
    }
    assert (send.attributes or {})["messaging.message.id"] == task_id
    lines = [record for record in caplog.records if getattr(record, "task_id", None) == task_id]
    assert {record.getMessage().split("]")[-1].split(" ")[-1] for record in lines} >= {"runs"}
    assert len(lines) == 3
    ids = {(getattr(record, "trace_id", ""), getattr(record, "span_id", "")) for record in lines}
    assert ids == {(f"{seen:032x}", f"{id_of(process):016x}")}
    points = traced.metrics()
    assert sum(point.value for point in points["messaging.client.sent.messages"]) == 2
    assert sum(point.value for point in points["messaging.client.consumed.messages"]) == 2
    assert sum(point.count for point in points["messaging.process.duration"]) == 2
    assert sum(point.count for point in points["messaging.client.operation.duration"]) == 2


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
async def test_what_a_child_process_traces_belongs_to_the_run(start_method: str):
    pool_tasks.exporter.clear()
    async with (
        pool_tasks.app,
        pool_tasks.app.worker(pool="processes", concurrency=1, start_method=start_method),
    ):
        seen = [await (await pool_tasks.app.send_task("inside")) for _ in range(2)]
    runs = [span for span in pool_tasks.exporter.get_finished_spans() if span.name == "process celery"]
    assert len(runs) == 2
    for found, run in zip(seen, runs, strict=True):
        assert run.context is not None
        ids = trace.format_trace_id(run.context.trace_id), trace.format_span_id(run.context.span_id)
        assert (found["trace"], found["parent"]) == ids
        assert found["log"] == " ".join(ids)


async def test_a_failure_is_one(traced: Traced):
    async with traced.app, traced.app.worker():
        await traced.app.send_task("bad")
        await traced.until(lambda: bool(traced.spans("process celery")))
    (process,) = traced.spans("process celery")
    assert process.status.status_code is StatusCode.ERROR
    assert (process.attributes or {})["error.type"] == "ValueError"
    assert process.events[0].name == "exception"


async def test_a_batch_is_one_sending_with_a_context_for_each_message(traced: Traced):
    async with traced.app, traced.app.worker():
        await traced.app.send_many([traced.app.call("good") for _ in range(3)])
        await traced.until(lambda: len(traced.spans("process celery")) == 3)
    (send,) = traced.spans("send celery")
    created = {id_of(span) for span in traced.spans("create celery")}
    assert {link.context.span_id for link in send.links} == created
    assert {parent_of(span) for span in traced.spans("process celery")} == created


async def test_a_workflow_is_one_trace(traced: Traced):
    s = traced.app.signature
    workflow = chain(s("add", 1), chord([s("add", 2), s("add", 3)], s("good").set(immutable=True)))
    with traced.provider.get_tracer("web").start_as_current_span("GET /"):
        async with traced.app, traced.app.worker():
            await traced.app.send(workflow)
            await traced.until(lambda: len(traced.spans("process celery")) == 4)
    (root,) = traced.spans("GET /")
    spans = [span for span in traced.exporter.get_finished_spans() if span is not root]
    assert one_trace([root, *spans])
    assert all(parent_of(span) for span in spans)


async def test_links_in_place_of_parents():
    traced = Traced(links=True)

    @traced.app.task(name="good")
    async def good() -> None:
        return None

    async with traced.app, traced.app.worker():
        await (await traced.app.send_task("good"))
        await traced.until(lambda: bool(traced.spans("process celery")))
    (send,), (process,) = traced.spans("send celery"), traced.spans("process celery")
    assert not one_trace([send, process])
    assert [link.context.span_id for link in process.links] == [id_of(send)]


async def test_old_names_beside_the_new_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(OPT_IN, "http, messaging/dup")
    traced = Traced()
    async with traced.app:
        await traced.app.send_task("good")
    (send,) = traced.spans("send celery")
    assert (send.attributes or {})["messaging.destination"] == "celery"
    assert (send.attributes or {})["messaging.destination.name"] == "celery"


@pytest.mark.parametrize(
    ("header", "continues"),
    [
        (PARENT, True),
        ("", False),
        ("00-zz-00f067aa0ba902b7-01", False),
        (PARENT * 200, False),
        (7, False),
        (None, False),
        ({"traceparent": PARENT}, False),
    ],
)
async def test_a_context_that_cannot_be_read_is_none(traced: Traced, header: object, continues: bool):
    async with traced.app, traced.app.worker():
        seen = await (await traced.app.send_task("good", headers={"traceparent": header}))
    assert seen
    assert (seen == int(PARENT[3:35], 16)) == continues
    assert traced.spans("send celery") == []  # it carries one already


async def test_a_context_is_found_in_the_nested_headers(traced: Traced):
    async with traced.app, traced.app.worker():
        traced.app.send_listeners._listeners.clear()
        seen = await (await traced.app.send_task("good", headers={"headers": {"traceparent": PARENT}}))
    assert seen == int(PARENT[3:35], 16)


PROGRAM = Path(__file__).with_name("traced_celery.py")


def start(redis: RedisServer, queue: str, *command: str) -> LoggedProcess:
    environment = {**os.environ, "TRACED": f"{redis.url()} {queue}.celery {queue}"}
    process = LoggedProcess([sys.executable, *command], env=environment, cwd=PROGRAM.parent)
    process.wait_for(" ready")
    return process


def spans_of(process: LoggedProcess) -> list[tuple[str, int, int, int]]:
    """Name, trace, id and parent of each span that the process has printed."""
    return [tuple(json.loads(line[5:])) for line in process.lines if line.startswith("SPAN ")]


@pytest.fixture
def celery_worker(own_redis: RedisServer, queue: str) -> Iterator[LoggedProcess]:
    process = start(own_redis, queue, str(PROGRAM))
    yield process
    process.kill()


async def test_a_celery_app_that_is_instrumented_is_traced_once(own_redis: RedisServer, queue: str):
    traced = Traced(own_redis.url(), queue)
    process = start(
        own_redis, queue, "-m", "celeriac", "worker", "-A", "traced_celery", "-Q", f"{queue}.celery"
    )
    try:
        async with traced.app:
            await traced.app.send_task("step", queue=f"{queue}.celery")
        process.wait_for('"run/step"')
        assert process.stop() == 0
    finally:
        if process.running:
            process.kill()
    (send,) = traced.spans(f"send {queue}.celery")
    found = spans_of(process)
    assert sorted(name for name, _, _, _ in found) == ["apply_async/final", "run/step"]
    run = next(span for span in found if span[0] == "run/step")
    assert run[3] == id_of(send)


async def test_one_trace_from_celeriac_through_celery_and_back(
    own_redis: RedisServer, queue: str, celery_worker: LoggedProcess
):
    traced = Traced(own_redis.url(), queue)
    app = traced.app
    done = asyncio.Event()

    @app.task(name="relay", retry=Retry(max_attempts=2, backoff=0.01, on=(OSError,)))
    async def relay(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("not yet")
        await app.send_task("step", queue=f"{queue}.celery")

    @app.task(name="final")
    async def final() -> None:
        done.set()

    async with app, app.worker():
        with traced.provider.get_tracer("web").start_as_current_span("GET /"):
            await app.send_task("relay")
        async with asyncio.timeout(WAIT):
            await done.wait()
        await traced.until(lambda: len(traced.spans(f"process {queue}")) == 3)
    celery_worker.wait_for('"run/step"')
    celerys = {name: facts for name, *facts in spans_of(celery_worker)}
    (root,), (send,) = traced.spans("GET /"), traced.spans(f"send {queue}")
    first, second, last = traced.spans(f"process {queue}")
    (onward,) = traced.spans(f"send {queue}.celery")
    assert root.context is not None
    assert {trace_id for trace_id, _, _ in celerys.values()} == {root.context.trace_id}
    assert one_trace(traced.exporter.get_finished_spans())
    assert parent_of(send) == id_of(root)
    assert parent_of(first) == parent_of(second) == id_of(send)  # a retry is a sibling
    assert "celery.retry.reason" in (first.attributes or {})
    assert parent_of(onward) == id_of(second)
    assert celerys["run/step"][2] == id_of(onward)
    assert parent_of(last) == celerys["apply_async/final"][1]
    assert (onward.attributes or {})["server.port"] == own_redis.port
    assert (onward.attributes or {})["messaging.system"] == "redis"
