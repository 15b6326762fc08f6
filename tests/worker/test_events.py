"""What a worker tells monitors: on every broker, with nobody listening, and while the broker is away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Context, Retry
from celeriac.client.event_reader import EventStream
from celeriac.client.event_sender import EventSender
from celeriac.contracts.fanout import Exchange
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import EVENTS, Event, EventWriter, TaskStarted
from celeriac.worker.events.share import Share

NODE = "ours@here"


class Heard:
    """The events that came, and those of one task."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.came = asyncio.Event()

    def of(self, task_id: str) -> list[Event]:
        return [event for event in self.events if event.task_id == task_id]

    def types(self, task_id: str) -> list[str]:
        return [event.type for event in self.of(task_id)]

    def workers(self) -> list[str]:
        return [event.type for event in self.events if event.node == NODE and event.task_id is None]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def listening(app: Celeriac) -> AsyncIterator[Heard]:
    heard = Heard()

    async def take(events: EventStream) -> None:
        async for event in events:
            heard.events.append(event)
            heard.came.set()

    async with app.events.listen() as events:
        taking = asyncio.create_task(take(events))
        yield heard
        taking.cancel()
        await asyncio.wait([taking])


@pytest.fixture(params=["memory", "sqlite", "redis", "rabbitmq", "postgres"])
async def app(
    request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]
) -> AsyncIterator[Celeriac]:
    local = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/broker.db"}
    remote = {"redis": "redis_url", "rabbitmq": "rabbit_url", "postgres": "postgres_url"}
    url = local.get(request.param) or request.getfixturevalue(remote[request.param])
    backend = f"sqlite:///{tmp_path}/results.db" if request.param == "rabbitmq" else url
    async with Celeriac("events", url, backend, default_queue=unique("events"), publish_timeout=30) as app:
        yield app


def tasks_of(app: Celeriac) -> None:
    @app.task(name="tasks.add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="tasks.fail")
    def fail() -> None:
        raise ValueError("boom")

    @app.task(name="tasks.again", retry=Retry(max_attempts=2, backoff=1.0, jitter=False, on=(KeyError,)))
    async def again() -> None:
        raise KeyError("once more")

    @app.task(name="tasks.reject")
    async def reject(ctx: Context) -> None:
        ctx.reject("not this one")

    @app.task(name="tasks.progress")
    async def progress(ctx: Context) -> None:
        for done in range(20):
            ctx.progress(done, 20, "on its way")

    @app.task(name="tasks.quiet", send_events=False)
    async def quiet() -> None:
        return


async def test_every_event_of_a_worker_and_its_tasks(app: Celeriac) -> None:
    tasks_of(app)
    async with listening(app) as heard:
        async with app.worker(name=NODE, send_events=True):
            add = await app.send_task("tasks.add", [2, 3])
            fail = await app.send_task("tasks.fail")
            again = await app.send_task("tasks.again")
            reject = await app.send_task("tasks.reject")
            progress = await app.send_task("tasks.progress")
            quiet = await app.send_task("tasks.quiet")
            unknown = await app.send_task("tasks.unknown", [1])
            expired = await app.send_task("tasks.add", [0, 0], expires=0.001, countdown=0.2)
            await heard.until(lambda: "task-revoked" in heard.types(expired.id))
            await heard.until(lambda: heard.types(again.id).count("task-failed"))
            await quiet.wait(60)
            await heard.until(lambda: "task-succeeded" in heard.types(progress.id))
            await heard.until(lambda: "worker-heartbeat" in heard.workers())
        await heard.until(lambda: "worker-offline" in heard.workers())
    once = ["task-received", "task-started"]
    assert heard.types(add.id) == [*once, "task-succeeded"]
    assert heard.types(fail.id) == [*once, "task-failed"]
    assert heard.types(again.id) == [*once, "task-retried", *once, "task-failed"]
    assert heard.types(reject.id) == [*once, "task-failed", "task-rejected"]
    assert heard.types(progress.id) == [*once, "task-progress", "task-succeeded"]
    assert heard.types(unknown.id) == ["task-failed"]
    assert heard.types(expired.id) == ["task-received", "task-revoked"]
    assert heard.types(quiet.id) == []
    assert (heard.workers()[0], heard.workers()[-1]) == ("worker-online", "worker-offline")
    _look_at_fields(app, heard, add.id, fail.id, unknown.id)


async def test_a_revocation_is_told_within_a_second(app: Celeriac) -> None:
    began = asyncio.Event()

    @app.task(name="tasks.stay")
    async def stay() -> None:
        began.set()
        await asyncio.Event().wait()

    async with listening(app) as heard, app.worker(name=NODE, send_events=True, concurrency=1):
        running, parked = await stay.send(), await stay.using(countdown=3600).send()
        await asyncio.wait_for(began.wait(), 60)
        waiting = await stay.send()
        for result in (parked, waiting):
            await result.cancel()
        before = time.time()
        await running.cancel(terminate=True)
        for result in (running, waiting, parked):
            await heard.until(lambda id=result.id: "task-revoked" in heard.types(id))
    (told,) = (event.fields for event in heard.of(running.id) if event.type == "task-revoked")
    assert told["timestamp"] - before < 1.0
    assert (told["terminated"], told["expired"]) == (True, False)


def _look_at_fields(app: Celeriac, heard: Heard, add: str, fail: str, unknown: str) -> None:
    queue = app.settings.default_queue
    received, _, succeeded = (event.fields for event in heard.of(add))
    assert (received["name"], received["args"], received["kwargs"]) == ("tasks.add", "(2, 3)", "{}")
    assert (received["queue"], received["routing_key"]) == (queue, queue)
    assert (received["root_id"], received["parent_id"], received["retries"]) == (add, None, 0)
    assert (received["hostname"], received["eta"], received["expires"]) == (NODE, None, None)
    assert succeeded["result"] == "5"
    assert 0 < succeeded["runtime"] < 30
    failed = heard.of(fail)[-1].fields
    assert failed["exception"] == "ValueError('boom')"
    assert failed["traceback"].endswith("ValueError: boom\n")
    refused = heard.of(unknown)[0].fields
    assert (refused["name"], refused["args"]) == ("tasks.unknown", "(1,)")
    assert refused["exception"] == "NotRegistered('tasks.unknown')"
    clocks = [event.fields["clock"] for event in heard.events if event.node == NODE]
    assert len(set(clocks)) == len(clocks)
    online = next(event.fields for event in heard.events if event.type == "worker-online")
    assert (online["freq"], online["sw_ident"], online["active"]) == (2.0, "celeriac", 0)
    offline = next(event.fields for event in heard.events if event.type == "worker-offline")
    assert offline["processed"] == 7


async def test_a_sender_tells_of_its_messages(app: Celeriac) -> None:
    tasks_of(app)
    telling = Celeriac(
        "telling",
        app.broker_url,
        app.backend_url,
        default_queue=app.settings.default_queue,
        send_sent_event=True,
    )
    if app.broker_url == "memory://":
        telling = Celeriac(
            "telling", app.connections().broker, app.connections().backend, send_sent_event=True
        )
    async with listening(app) as heard, telling:
        one = await telling.send_task("tasks.add", [1, 2])
        many = await telling.send_many([telling.call("tasks.add", [number, 0]) for number in range(3)])
        await heard.until(lambda: len(heard.events) == 4)
    assert [event.task_id for event in heard.events] == [one.id, *[result.id for result in many]]
    told, queue = heard.events[0].fields, telling.settings.default_queue
    assert (told["type"], told["name"], told["args"], told["kwargs"]) == (
        "task-sent",
        "tasks.add",
        "(1, 2)",
        "{}",
    )
    assert (told["queue"], told["exchange"], told["routing_key"]) == (queue, "", queue)
    assert told["hostname"].startswith("gen")
    assert (told["root_id"], told["parent_id"], told["retries"]) == (one.id, None, 0)


class FakeFanout:
    """Plays a broker that is away, has no listeners, or refuses, each between two events."""

    def __init__(self) -> None:
        self.messages: list[list[dict[str, Any]]] = []
        self.sizes: list[int] = []
        self.listeners: int | None = 1
        self.error: BrokerError | None = None
        self.tried = asyncio.Event()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int | None:
        self.tried.set()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if self.listeners != 0:
            self.messages.append(json.loads(envelope.body))
            self.sizes.append(len(envelope.body))
        return self.listeners

    @property
    def ids(self) -> list[str]:
        return [event["uuid"] for message in self.messages for event in message]


def sender_to(fanout: FakeFanout) -> EventSender:
    return EventSender(fanout, EVENTS, EventWriter(NODE, 1), "task.multi", NODE)  # type: ignore[arg-type]


def started(number: int, size: int = 1) -> TaskStarted:
    return TaskStarted(number, 0.0, f"{number}".zfill(size))


async def test_what_comes_up_meanwhile_goes_with_the_next_batch() -> None:
    fanout = FakeFanout()
    sender = sender_to(fanout)
    sender.put(started(0))
    await fanout.tried.wait()
    for number in range(1, 1000):
        sender.put(started(number))
    await sender.finish(30)
    assert fanout.ids == [str(number) for number in range(1000)]
    assert [len(message) for message in fanout.messages] == [1, 300, 300, 300, 99]
    assert sender.sent == 1000


async def test_a_batch_has_at_most_64_kib() -> None:
    fanout = FakeFanout()
    sender = sender_to(fanout)
    for number in range(20):
        sender.put(started(number, size=10_000))
    await sender.finish(30)
    assert fanout.ids == [str(number).zfill(10_000) for number in range(20)]
    assert len(fanout.messages) < 8
    assert max(fanout.sizes) <= 64 * 1024


async def test_the_newest_are_kept_while_the_broker_is_away() -> None:
    fanout = FakeFanout()
    fanout.error = BrokerUnavailable("away")
    sender = sender_to(fanout)
    for number in range(10_500):
        sender.put(started(number))
        if number == 100:
            await fanout.tried.wait()
            await asyncio.sleep(0.01)
    fanout.error = None
    await sender.finish(30)
    assert fanout.ids == [str(number) for number in range(500, 10_500)]
    assert (sender.sent, sender.dropped) == (10_000, 500)


async def test_nobody_is_told_for_a_while_when_nobody_listens() -> None:
    fanout = FakeFanout()
    fanout.listeners = 0
    sender = sender_to(fanout)
    sender.put(started(0))
    await sender.finish(30)
    assert (sender.wanted, sender.listeners) == (False, 0)
    fanout.listeners = 1
    sender.wake()
    sender.put(started(1))
    await sender.finish(30)
    assert (fanout.ids, sender.sent, sender.wanted) == (["1"], 1, True)


async def test_a_refusal_is_logged_once_and_ends_all_sending(caplog: pytest.LogCaptureFixture) -> None:
    fanout = FakeFanout()
    fanout.error = BrokerError("no rights")
    sender = sender_to(fanout)
    sender.put(started(0))
    await sender.finish(30)
    sender.wake()
    assert not sender.wanted
    assert not await sender.publish(sender.writer.single(started(1)), "worker.heartbeat")
    assert caplog.messages == [f"monitors do not see {NODE}: no rights"]


def test_of_too_many_tasks_an_even_share_is_told() -> None:
    now = 100.0
    share = Share(1000.0, lambda: now)
    assert all(share.takes() for _ in range(199))
    assert sum(share.takes() for _ in range(1000)) <= 1  # a burst has no more than those of 0.2 s
    told: list[bool] = []
    for _ in range(6):
        now += 0.5
        told = [share.takes() for _ in range(2000)]
    assert share.present == pytest.approx(1 / 16)  # of four times as many as are told in full
    assert sum(told) == pytest.approx(125, abs=1)
    assert all(any(told[at : at + 16]) for at in range(1984))
    for _ in range(4):
        told.clear()
        for _ in range(400):
            now += 0.5 / 400
            told.append(share.takes())
    assert (share.present, sum(told)) == (1, 400)
    now += 5
    assert share.present == 1
    now += 0.5
    assert share.takes()
    assert Share(None).takes()


@pytest.mark.parametrize("quiet", [0.0, 0.3, 0.6, 10.0])
def test_a_burst_after_a_quiet_time_is_chosen_up_to_its_allowance_once(quiet: float) -> None:
    now = 100.0
    share = Share(1000.0, lambda: now)
    now += quiet
    chosen = 0
    for _ in range(3000):
        chosen += share.takes()
        now += 0.0001
    assert 200 <= chosen <= 300, (
        "a fifth of a second's, what may come meanwhile, and what came before the first look"
    )


def test_up_to_the_limit_every_task_is_chosen() -> None:
    now = 100.0
    share = Share(1000.0, lambda: now)
    for _ in range(5000):
        assert share.takes()
        now += 0.00101
    for _ in range(3):  # a group now and then
        now += 1
        assert all(share.takes() for _ in range(199))
