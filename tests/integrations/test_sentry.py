"""Transactions and errors in Sentry, and the headers that its integration of Celery reads."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk

from celeriac import Celeriac, Context
from celeriac.integrations.sentry import Reporting, instrument
from tests.integrations.test_opentelemetry import Traced


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What would be sent to Sentry."""
    found: list[dict[str, Any]] = []

    def keep(event: Any, hint: Any) -> None:
        found.append(event)

    sentry_sdk.init(
        "http://key@localhost/1",
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        before_send=keep,
        before_send_transaction=keep,
    )
    yield found
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def app() -> Celeriac:
    made = Celeriac("shop", "memory://", "memory://")
    instrument(made)
    instrument(made)

    @made.task(name="headers")
    async def headers(ctx: Context) -> dict[str, Any]:
        return ctx.headers

    @made.task(name="bad")
    async def bad(secret: str) -> None:
        raise ValueError("no")

    return made


async def until(found: list[dict[str, Any]], count: int) -> None:
    async with asyncio.timeout(60):
        while len(found) < count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


async def test_a_run_continues_the_senders_transaction(app: Celeriac, events: list[dict[str, Any]]):
    async with app, app.worker():
        with sentry_sdk.start_transaction(name="GET /"):
            sent = await app.send_task("headers")
        headers = await sent
        await until(events, 2)
    web, run = sorted(events, key=lambda event: event["transaction"] != "GET /")
    assert run["transaction"] == "headers"
    assert run["contexts"]["trace"]["op"] == "queue.task.celery"
    assert run["contexts"]["trace"]["trace_id"] == web["contexts"]["trace"]["trace_id"]
    (submit,) = web["spans"]
    assert (submit["op"], submit["description"]) == ("queue.submit.celery", "headers")
    assert run["contexts"]["trace"]["parent_span_id"] == submit["span_id"]
    assert run["tags"]["celery_task_id"] == str(sent.id)
    data = run["contexts"]["trace"]["data"]
    assert data["messaging.destination.name"] == "celery"
    assert data["messaging.message.receive.latency"] >= 0
    assert set(headers) == {"sentry-trace", "baggage", "sentry-task-enqueued-time", "headers"}
    assert {name: headers[name] for name in headers["headers"]} == headers["headers"]


async def test_a_failure_is_reported_once_without_arguments(app: Celeriac, events: list[dict[str, Any]]):
    async with app, app.worker():
        await app.send_task("bad", ["my password"])
        await until(events, 2)
    (error,) = [event for event in events if "exception" in event]
    (run,) = [event for event in events if event.get("type") == "transaction"]
    assert error["exception"]["values"][-1]["type"] == "ValueError"
    assert error["extra"]["celery-job"] == {"task_name": "bad"}
    assert error["tags"]["celery_task_id"]
    assert error["contexts"]["trace"]["trace_id"] == run["contexts"]["trace"]["trace_id"]
    assert run["contexts"]["trace"]["status"] == "internal_error"


async def test_a_trace_is_continued_from_the_nested_headers_alone(
    app: Celeriac, events: list[dict[str, Any]]
):
    nested = {"sentry-trace": f"{'a' * 32}-{'b' * 16}-1"}
    async with app, app.worker():
        app.send_listeners._listeners.clear()
        await app.send_task("headers", headers={"headers": nested})
        await until(events, 1)
    assert events[0]["contexts"]["trace"]["trace_id"] == "a" * 32
    assert events[0]["contexts"]["trace"]["parent_span_id"] == "b" * 16


def test_what_a_child_process_reports_belongs_to_the_run(events: list[dict[str, Any]]):
    carried = {
        "sentry-trace": f"{'a' * 32}-{'b' * 16}-1",
        "sentry-task-id": "an id",
        "traceparent": "not Sentry's",
    }
    for texts in (carried, {}):
        with Reporting.around_body(texts):
            sentry_sdk.capture_message("from the child")
    inside, without = events
    assert inside["contexts"]["trace"]["trace_id"] == "a" * 32
    assert inside["tags"]["celery_task_id"] == "an id"
    assert without["contexts"]["trace"]["trace_id"] != "a" * 32
    assert "celery_task_id" not in without.get("tags", {})


async def test_both_trace_a_run_once_each_and_carry_their_own_headers(events: list[dict[str, Any]]):
    traced = Traced()
    instrument(traced.app)

    @traced.app.task(name="carried")
    async def carried(ctx: Context) -> dict[str, Any]:
        return {**ctx.carried}

    async with traced.app, traced.app.worker():
        with sentry_sdk.start_transaction(name="GET /"):
            sent = await traced.app.send_task("carried")
        told = await sent
        await until(events, 2)
        await traced.until(lambda: len(traced.spans("process celery")) == 1)
    web, run = sorted(events, key=lambda event: event["transaction"] != "GET /")
    (span,) = traced.spans("process celery")
    assert len(traced.spans("send celery")) == 1
    assert [one["op"] for one in web["spans"]] == ["queue.submit.celery"]
    assert span.context is not None
    assert told["traceparent"].split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    ]
    assert told["sentry-trace"].startswith(run["contexts"]["trace"]["trace_id"])


async def test_nothing_happens_where_sentry_is_not_set_up(app: Celeriac):
    async with app, app.worker():
        assert await (await app.send_task("headers")) == {}
