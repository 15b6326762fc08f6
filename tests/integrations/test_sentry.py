"""Transactions and errors in Sentry, and the headers that its integration of Celery reads."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk

from celeriac import Celeriac, Context
from celeriac.integrations.sentry import instrument


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
    async with asyncio.timeout(30):
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


async def test_nothing_happens_where_sentry_is_not_set_up(app: Celeriac):
    async with app, app.worker():
        assert await (await app.send_task("headers")) == {}
