"""Celery's own reader of events hears a worker of ours; a reader that stands still harms nobody."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import celery
import pytest
from celery.events.state import State

from celeriac import Celeriac, Context
from celeriac.client.event_sender import EventSender
from celeriac.wire.event import EVENTS, TASK_KEY, EventWriter, TaskSucceeded
from tests.servers import RabbitServer, RedisServer
from tests.wire.captures import FIXTURES

NODE = "ours@here"
PATIENCE = 60.0
OURS_ALONE = {"queue", "exchange", "routing_key"}


class Receiver:
    """Celery's receiver and state, in a thread."""

    def __init__(self, url: str) -> None:
        self.state = State()
        self.events: list[dict[str, Any]] = []
        self._app = celery.Celery("reader", broker=url)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._capture, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        self._app.close()

    def _capture(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._take})
            with receiver.consumer_context() as (connected, _, _):
                while not self._ended.is_set():
                    try:
                        connected.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append(dict(event))
        self.state.event(event)

    def has(self, kind: str, uuid: str | None) -> bool:
        return any(event["type"] == kind and event.get("uuid") == uuid for event in self.events)

    async def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            told = [(event["type"], event.get("uuid"), event["clock"]) for event in self.events]
            assert time.monotonic() < end, told
            await asyncio.sleep(0.05)


@pytest.fixture(params=["redis", "rabbitmq"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        with RedisServer() as server:
            yield server.url()
    else:
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        yield rabbit.url()


@pytest.fixture
async def app(place: str, tmp_path: Path, unique: Callable[[str], str]) -> AsyncIterator[Celeriac]:
    results = f"sqlite:///{tmp_path}/results.db"
    async with Celeriac(
        "told", place, results, default_queue=unique("told"), publish_timeout=30, send_events=True
    ) as app:
        yield app


def captured_fields(kind: str) -> set[str]:
    """The fields of Celery's own event."""
    for path in sorted(FIXTURES.glob(f"event.{kind}.*.json")):
        body = json.loads(path.read_text())["decoded"]["body"]
        for event in body if isinstance(body, list) else [body]:
            if event["type"] == kind:
                return set(event)
    raise AssertionError(kind)


async def test_celerys_state_is_the_truth(app: Celeriac, place: str) -> None:
    @app.task(name="tasks.add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="tasks.fail")
    async def fail() -> None:
        raise ValueError("boom")

    @app.task(name="tasks.again")
    async def again(ctx: Context) -> None:
        if ctx.retries == 0:
            ctx.retry(countdown=1, cause=KeyError("later"))

    @app.task(name="tasks.climb")
    async def climb(ctx: Context) -> None:
        ctx.progress(1, 2)
        await asyncio.sleep(3600)

    with Receiver(place) as reader:
        async with app.worker(name=NODE):
            await reader.until(
                lambda: NODE in reader.state.workers
            )  # kombu subscribes some time after it says so
            ended = [await add.send(1, 2), await fail.send(), await again.send()]
            climbing = await climb.send()
            expired = await add.using(countdown=0.1, expires=0.001).send(0, 0)
            tasks = reader.state.tasks

            def states(*ids: str) -> list[str | None]:
                return [tasks[id].state if id in tasks else None for id in ids]

            await reader.until(
                lambda: states(*(one.id for one in ended)) == ["SUCCESS", "FAILURE", "SUCCESS"]
            )
            await reader.until(lambda: states(expired.id, climbing.id) == ["REVOKED", "PROGRESS"])
            assert reader.state.workers[NODE].alive
            await app.cancel(climbing.id)
            await reader.until(lambda: reader.has("task-revoked", climbing.id))
            await reader.until(lambda: reader.has("worker-heartbeat", None))
        await reader.until(lambda: reader.events[-1]["type"] == "worker-offline")
    added = tasks[ended[0].id]
    assert (added.name, added.args, added.kwargs, added.result) == ("tasks.add", "(1, 2)", "{}", "3")
    assert (added.hostname, added.retries, added.routing_key) == (NODE, 0, app.settings.default_queue)
    assert tasks[ended[1].id].exception == "ValueError('boom')"
    assert not reader.state.workers[NODE].alive
    _compare_fields(reader.events)


def _compare_fields(events: list[dict[str, Any]]) -> None:
    """Ours have the fields of Celery's, one by one, and those that are ours alone."""
    seen = set()
    for event in events:
        kind, fields = event["type"], set(event) - {"local_received"}
        if event["hostname"] == NODE and kind != "task-progress":
            seen.add(kind)
            more = OURS_ALONE if kind == "task-received" else set()
            assert fields == captured_fields(kind) | more, kind
    assert seen - {"worker-online"} == {
        "worker-heartbeat", "worker-offline", "task-received", "task-started", "task-succeeded",
        "task-failed", "task-retried", "task-revoked",
    }  # fmt: skip


async def test_a_reader_that_stands_still_is_dropped_and_harms_nobody() -> None:
    with RedisServer(arguments=("--client-output-buffer-limit", "pubsub 8mb 4mb 60")) as server:
        async with Celeriac("told", server.url()) as app:
            fanout = app.connections().broker.fanout
            assert fanout is not None
            with socket.create_connection(("127.0.0.1", server.port)) as stalled:
                stalled.sendall(b"PSUBSCRIBE *\r\n")
                assert stalled.recv(10)
                sender = EventSender(fanout, EVENTS, EventWriter(NODE, 1), TASK_KEY, NODE)
                sent = 0
                async with asyncio.timeout(PATIENCE):
                    while sender.wanted:
                        sender.put(TaskSucceeded(sent, time.time(), "x" * 36, "y" * 1000, 0.1))
                        sent += 1
                        while len(sender._buffer) > 1000:  # noqa: ASYNC110
                            await asyncio.sleep(0.001)
            await sender.finish(PATIENCE)
    assert sender.dropped == 0
    assert sent * 1000 > 4_000_000
