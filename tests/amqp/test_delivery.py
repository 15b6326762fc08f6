"""What a worker gets from RabbitMQ, and what becomes of it."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import amqp
from celeriac import Celeriac
from celeriac.contracts.broker import Broker
from celeriac.errors import TaskRevoked, WorkerLost
from celeriac.testing.steps import envelope_of, numbered, publish_numbers, soon, take_all, take_some
from celeriac.wire.envelope import Route
from tests.amqp.conftest import MakeBroker
from tests.wire.captures import FIXTURES


def make_app(url: str, queue: str, **options: Any) -> Celeriac:
    app = Celeriac("amqp", broker=url, backend="rpc://", default_queue=queue, **options)

    async def add(x: int, y: int) -> int:
        return x + y

    app.register("tasks.add", add)
    app.register("tasks.noargs", lambda: None)
    return app


def capture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / name).read_text())["raw"]
    return found


def as_sent(raw: dict[str, Any], **changes: Any) -> amqp.Message:
    """A captured message, as py-amqp sends it."""
    properties = {name: value for name, value in raw["properties"].items() if name != "timestamp"} | changes
    if raw["headers"] is not None:
        properties["application_headers"] = raw["headers"]
    return amqp.Message(base64.b64decode(raw["body_base64"]), **properties)


async def test_no_more_is_reserved_than_may_start(make_broker: MakeBroker, queue: str) -> None:
    broker, other = make_broker(), make_broker()
    await publish_numbers(broker, queue, range(20))
    async with broker.subscribe([queue]) as subscription:
        taken = await take_all(subscription, 3)
        assert await other.depth(queue) == 17
        await taken[0].receipt.ack()
        (more,) = await take_some(subscription, 1)
        assert await other.depth(queue) == 16
        await more.receipt.ack()


async def test_what_nobody_starts_goes_to_who_can(make_broker: MakeBroker, queue: str) -> None:
    """Two queues may push twice what fits; the surplus goes back while the worker is busy."""
    broker, other = make_broker(), make_broker()
    queues = [f"{queue}.a", f"{queue}.b"]
    for name in queues:
        await publish_numbers(broker, name, range(2))
    async with broker.subscribe(queues) as subscription, other.subscribe(queues) as second:
        mine = await take_all(subscription, 2)
        theirs = await take_all(second, 2)
    assert len({(delivery.queue, envelope_of(delivery).body) for delivery in mine + theirs}) == 4


async def test_who_is_fast_gets_messages_ahead_and_gives_them_back_when_slow(
    make_broker: MakeBroker, queue: str
) -> None:
    broker, other = make_broker(), make_broker()
    left = 3000
    await publish_numbers(broker, queue, range(left))
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        while subscription.buffered(queue) <= 20:
            taken = await take_some(subscription, 10)
            left -= len(taken)
            for delivery in taken:
                await delivery.receipt.ack()
        async with asyncio.timeout(60):
            while await other.depth(queue) < left:  # noqa: ASYNC110 - another process's look
                await asyncio.sleep(0.05)
        assert subscription.buffered(queue) == 0


async def test_a_message_that_is_parked_keeps_its_count_of_deliveries(
    make_broker: MakeBroker, rabbit_url: str, queue: str
) -> None:
    url = f"{rabbit_url}?queue_type=quorum"
    holder, broker = make_broker(url), make_broker(url)
    await publish_numbers(holder, queue, [1])
    async with holder.subscribe([queue]) as subscription:
        await take_all(subscription, 1)
        await holder.close()  # as if it had died: nothing was settled
    async with broker.subscribe([queue]) as subscription:
        (again,) = await take_all(subscription, 1)
        assert again.deliveries == 2
        await again.receipt.park(time.time() + 1.5)
        (returned,) = await soon(take_all(subscription, 1))
        assert returned.deliveries == 2
        await returned.receipt.bury("enough")
        [letter] = [letter for letter in await broker.dead.list() if letter.queue == queue]
        await broker.dead.retry([letter.id])
        (revived,) = await soon(take_all(subscription, 1))
        assert revived.deliveries == 1
        await revived.receipt.ack()


async def test_a_delayed_message_of_celery_runs_and_can_be_retried_later(
    rabbit_url: str, channel: amqp.Channel, queue: str
) -> None:
    """With the headers that RabbitMQ added on its way: kept on a retry, they would make RabbitMQ drop it."""
    raw = capture("msg.native-delayed-delivered.amqp.json")
    runs: list[dict[str, Any]] = []
    done = asyncio.Event()

    app = Celeriac("amqp", broker=rabbit_url, backend="rpc://", default_queue=queue)

    def add(ctx: Any, x: int, y: int) -> None:
        runs.append(dict(ctx.headers))
        if ctx.retries < 2:
            ctx.retry(countdown=1.1)
        app.connections  # noqa: B018
        loop.call_soon_threadsafe(done.set)

    loop = asyncio.get_running_loop()
    app.register("tasks.add", add, bind=True)
    async with app, app.worker() as worker:
        await worker.ready()
        channel.basic_publish(as_sent(raw), routing_key=queue)
        await soon(done.wait())
    assert runs == [{}, {}, {}]


async def test_an_expired_task_is_told_of_though_nobody_worked_when_it_expired(
    rabbit_url: str, queue: str
) -> None:
    app = make_app(rabbit_url, queue)
    async with app:
        result = await app.tasks["tasks.add"].using(expires=0.2).send(1, 2)
        kept = await app.tasks["tasks.add"].using(expires=60).send(1, 2)
        await asyncio.sleep(0.3)
        async with app.worker():
            with pytest.raises(TaskRevoked, match="expired"):
                await result.wait(timeout=60)
            assert await kept.wait(timeout=60) == 3


@pytest.mark.parametrize("seconds", [0.3, 1.4])
async def test_an_eta_of_celery_is_kept_by_the_broker(
    rabbit_url: str, make_broker: MakeBroker, channel: amqp.Channel, queue: str, seconds: float
) -> None:
    """A stock client puts it on the queue at once; the worker moves it to the queues of delays."""
    app = make_app(rabbit_url, queue)
    async with app, app.worker(concurrency=1) as worker:
        await worker.ready()
        raw = capture("msg.none.celery57-v2.amqp.json")
        reply_to = await app.connections().backend.replies.address()  # type: ignore[union-attr]
        due = datetime.now(UTC) + timedelta(seconds=seconds)
        raw["headers"] |= {"eta": due.isoformat(), "id": queue}
        channel.basic_publish(as_sent(raw, correlation_id=queue, reply_to=reply_to), routing_key=queue)
        # The one slot is free for what may run now.
        assert await (await app.tasks["tasks.add"].send(1, 2)).wait(timeout=60) == 3
        assert datetime.now(UTC) < due
        result = app.result(queue)
        assert await result.wait(timeout=60) is None
        assert due <= datetime.now(UTC) < due + timedelta(seconds=1)


async def test_another_queue_gets_nothing_that_is_delayed_for_one_with_a_longer_name(
    make_broker: MakeBroker, queue: str
) -> None:
    broker = make_broker()
    short, long = queue, f"a.{queue}"
    async with broker.subscribe([short]) as one, broker.subscribe([long]) as other:
        waiting = asyncio.create_task(one.take(1)), asyncio.create_task(other.take(1))
        await broker.publish(numbered(1), Route(short, queue=short, due=time.time() + 0.2))
        await broker.publish(numbered(2), Route(long, queue=long, due=time.time() + 0.2))
        taken = [(await soon(task))[0] for task in waiting]
        assert [envelope_of(delivery).body for delivery in taken] == [b"1", b"2"]
        for delivery in taken:
            await delivery.receipt.ack()
        assert (await broker.depth(short), await broker.depth(long)) == (0, 0)


async def test_an_idle_worker_has_one_connection_and_uses_no_cpu(rabbit_url: str, queue: str) -> None:
    app = make_app(rabbit_url, queue)
    async with app, app.worker() as worker:
        await worker.ready()
        await (await app.tasks["tasks.add"].send(1, 2)).wait(timeout=60)
        before = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - before < 0.02
        assert app.connections().backend._link is app.connections().broker.link  # type: ignore[attr-defined]


async def test_deliveries_that_nobody_ended_are_counted_on_a_classic_queue(
    make_broker: MakeBroker, queue: str
) -> None:
    """RabbitMQ only marks them; what is looked at or given back on purpose is marked too, and does not count."""
    publisher = make_broker()
    await publish_numbers(publisher, queue, [1])
    await publisher.peek(queue)
    counted = []
    for _ in range(4):
        worker = make_broker()
        async with worker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            await delivery.receipt.requeue()
            (delivery,) = await take_some(subscription, 1)
            counted.append(delivery.deliveries)
            await worker.close()  # as if it had died: nothing was settled
    assert counted == [1, 2, 3, 4]
    worker = make_broker()
    async with worker.subscribe([queue]) as subscription:
        (delivery,) = await take_some(subscription, 1)
        assert (delivery.redelivered, delivery.deliveries) == (True, 5)
        await delivery.receipt.park(time.time() + 0.1)
        (delivery,) = await take_some(subscription, 1)
        assert (delivery.redelivered, delivery.deliveries) == (False, 5)
        await delivery.receipt.ack()


async def test_a_retried_dead_letter_counts_from_the_beginning(make_broker: MakeBroker, queue: str) -> None:
    broker = make_broker()
    await publish_numbers(broker, queue, [1])
    for _ in range(3):
        worker = make_broker()
        async with worker.subscribe([queue]) as subscription:
            await take_some(subscription, 1)
            await worker.close()
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await take_some(subscription, 1)
        assert delivery.deliveries == 4
        await delivery.receipt.bury("poison")
        await broker.dead.retry([letter.id for letter in await broker.dead.list() if letter.queue == queue])
        for redelivered in (False, True):
            (delivery,) = await take_some(subscription, 1)
            assert (delivery.redelivered, delivery.deliveries) == (redelivered, 1)
            if not redelivered:
                await delivery.receipt.requeue()
        await delivery.receipt.ack()


async def test_what_was_parked_twice_since_an_answer_was_lost_runs_once(
    rabbit_url: str, redis_url: str, make_broker: MakeBroker, queue: str
) -> None:
    app = Celeriac("twice", broker=rabbit_url, backend=redis_url, default_queue=queue)
    runs = []

    @app.task(name="runs")
    async def run() -> None:
        runs.append("run")

    broker = make_broker()
    async with app:
        result = await run.send()
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            receipt = delivery.receipt
            for _ in range(2):
                assert await receipt._rerouting.delay(receipt.message, queue, time.time() + 0.3)  # type: ignore[attr-defined]
            await receipt.ack()
        async with app.worker(concurrency=1):
            await result.wait(timeout=60)
            while await parked_for(queue, broker) or await broker.depth(queue):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
    assert runs == ["run"]


async def parked_for(queue: str, broker: Broker) -> int:
    """Return how many messages of this queue are parked; other tests park theirs on the same server."""
    return sum(parked.queue == queue for parked in await broker.schedule.list(limit=10_000))


async def test_a_copy_of_what_was_parked_can_be_parked_again(make_broker: MakeBroker, queue: str) -> None:
    broker = make_broker()
    await publish_numbers(broker, queue, [1])
    keys = []
    async with broker.subscribe([queue]) as subscription:
        for _ in range(3):
            (delivery,) = await soon(take_some(subscription, 1))
            keys.append(envelope_of(delivery).copy)
            await delivery.receipt.park(time.time() + 0.05)
        (delivery,) = await soon(take_some(subscription, 1))
        await delivery.receipt.ack()
    assert keys[0] is None
    assert len({copy.key for copy in keys[1:] if copy is not None}) == 2


async def test_what_was_pushed_and_never_taken_is_given_back_uncounted(
    make_broker: MakeBroker, queue: str
) -> None:
    holder, broker = make_broker(), make_broker()
    queues = [f"{queue}.a", f"{queue}.b"]
    for name in queues:
        await publish_numbers(broker, name, [1])
    async with holder.subscribe(queues) as subscription:
        (taken,) = await take_some(subscription, 1)
        await subscription.catch_up()
        (other,) = (name for name in queues if subscription.buffered(name))
        await subscription.stop()
        async with broker.subscribe([other]) as another:
            (delivery,) = await take_some(another, 1)
            assert (delivery.redelivered, delivery.deliveries) == (True, 1)
            await delivery.receipt.ack()
        await taken.receipt.ack()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_task_that_no_worker_lives_to_end_is_a_failure(
    rabbit_url: str, make_broker: MakeBroker, queue: str, kind: str
) -> None:
    url = f"{rabbit_url}?queue_type={kind}"
    app = make_app(url, queue, max_deliveries=2)
    async with app:
        result = await app.send_task("tasks.add", args=[1, 2], queue=queue)
        for _ in range(2):
            worker = make_broker(url)
            async with worker.subscribe([queue]) as subscription:
                await take_some(subscription, 1)
                await worker.close()
        async with app.worker():
            with pytest.raises(WorkerLost, match="max_deliveries is 2"):
                await result.wait(timeout=60)
            assert await app.connections().broker.depth(queue) == 0
