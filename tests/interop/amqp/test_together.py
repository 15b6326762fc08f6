"""Celery and celeriac on one RabbitMQ: one queue, quorum queues, delays that the broker keeps."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from kombu import Exchange, Queue

from celeriac import Celeriac
from celeriac.errors import TaskRevoked
from celeriac.servers.rabbitmq import AmqpBroker, QueueOptions
from tests.celery_connections import disconnect
from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celeriac_side import TASKS, note
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.clients import Client
from tests.interop.conftest import Serving
from tests.interop.record import Record
from tests.servers import RabbitServer

EACH = 200


async def test_tasks_of_both_run_exactly_once_each_on_workers_of_both(
    rabbit_server: RabbitServer,
    celery_client: CeleryClient,
    celeriac_client: CeleriacClient,
    celery_serving: Serving,
    celeriac_serving: Serving,
    records: Record,
    queue: str,
) -> None:
    async def send_and_wait(client: Client) -> list[str]:
        sent = [await client.send("interop.note_run", kwargs=records.where, queue=queue) for _ in range(EACH)]
        for task in sent:
            await task.value()
        return [task.id for task in sent]

    async with celery_serving(queue), celeriac_serving(queue):
        ids = await asyncio.gather(send_and_wait(celery_client), send_and_wait(celeriac_client))
    ran = [line.split() for line in records.all()]
    assert Counter(task_id for task_id, _ in ran) == Counter([*ids[0], *ids[1]])
    assert set(Counter(worker for _, worker in ran)) == {"celery", "celeriac"}
    with closing(rabbit_server.client()) as connection:
        assert connection.channel().queue_declare(queue, passive=True).message_count == 0


async def test_the_caller_hears_of_what_expired_before_it_ran(
    celeriac_client: CeleriacClient,
    celery_worker: CeleryWorker,
    celeriac_serving: Serving,
    records: Record,
    queue: str,
) -> None:
    """RabbitMQ drops what Celery's client sends with an expiry, and its caller waits; celeriac's client is told."""
    async with celeriac_serving(queue):
        for place in (celery_worker.queue, queue):
            sent = await celeriac_client.send(
                "interop.note",
                kwargs={**records.where, "value": "ran"},
                queue=place,
                expires=datetime.now(UTC) - timedelta(seconds=1),
            )
            with pytest.raises(TaskRevoked, match="expired"):
                await sent.value()
    assert records.all() == []


async def test_priorities_of_both_clients_are_one_order(rabbit_url: str, records: Record, queue: str) -> None:
    """The highest number goes first, whoever sent it, and what has none is the last."""
    celery = Celery("urgent", broker=rabbit_url, backend="rpc://", set_as_current=False)
    celery.conf.task_queues = [Queue(queue, Exchange(queue), routing_key=queue, max_priority=9)]
    # Else what it sends may reach the queue when the worker already takes from it.
    celery.conf.broker_transport_options = {"confirm_publish": True}
    app = Celeriac("urgent", broker=f"{rabbit_url}?max_priority=9", backend="disabled://")
    app.register("interop.note", note)

    def kwargs(value: str) -> dict[str, str]:
        return {**records.where, "value": value}

    def send() -> None:
        for priority in (0, 9, 6):
            celery.send_task(
                "interop.note", kwargs=kwargs(f"celery {priority}"), queue=queue, priority=priority
            )
        disconnect(celery)

    async with app:
        await asyncio.to_thread(send)
        for priority in (8, None, 4):
            await app.send_task(
                "interop.note", kwargs=kwargs(f"celeriac {priority}"), queue=queue, priority=priority
            )
        async with app.worker(queues=[queue], concurrency=1):
            ran = await records.take(6)
    assert ran == ["celery 9", "celeriac 8", "celery 6", "celeriac 4", "celery 0", "celeriac None"]


# --- quorum queues, and Celery's native delayed delivery


@pytest.fixture(scope="module")
def quorum_worker(rabbit_url: str) -> Iterator[CeleryWorker]:
    with CeleryWorker(rabbit_url, "rpc://", environment={"INTEROP_QUEUE_TYPE": "quorum"}) as worker:
        yield worker


@pytest.mark.parametrize("countdown", [None, 0.4, 2.3])
async def test_celeriac_sends_to_a_celery_worker_on_a_quorum_queue(
    celeriac_client: CeleriacClient, quorum_worker: CeleryWorker, countdown: float | None
) -> None:
    due = time.time() + (countdown or 0)
    sent = await celeriac_client.send("interop.clock", queue=quorum_worker.queue, countdown=countdown)
    assert due <= await sent.value() < due + 2
    sent = await celeriac_client.send("interop.retry_twice", queue=quorum_worker.queue, countdown=countdown)
    assert await sent.value() == [sent.id, 2]


@pytest.fixture
async def quorum_app(rabbit_url: str, queue: str) -> AsyncIterator[Celeriac]:
    options = QueueOptions(
        type="quorum", exchange=f"{queue}.topic", exchange_type="topic", routing_keys=("a.b",)
    )
    broker = AmqpBroker(rabbit_url, queues={queue: options})
    app = Celeriac("quorum", broker=broker, backend=rabbit_url.replace("amqp://", "rpc://"))
    for task in TASKS:
        app.register(f"interop.{task.__name__}", task)
    async with app:
        yield app
    await broker.close()


@pytest.fixture
def delaying_celery(rabbit_url: str, queue: str) -> Iterator[Celery]:
    app = Celery("delaying", broker=rabbit_url, backend="rpc://", set_as_current=False)
    exchange = Exchange(f"{queue}.topic", type="topic")
    quorum = {"x-queue-type": "quorum"}
    app.conf.task_queues = [Queue(queue, exchange, routing_key="a.b", queue_arguments=quorum)]
    yield app
    app.close()


async def test_a_delay_of_celery_is_kept_by_rabbitmq_and_runs_on_celeriac(
    quorum_app: Celeriac,
    delaying_celery: Celery,
    rabbit_server: RabbitServer,
    queue: str,
) -> None:
    async with quorum_app.worker(queues=[queue], concurrency=1):
        # The queues of delays must be there: the client only publishes to them.
        await quorum_app.send_task("interop.none", queue=queue, countdown=0.05)

        def send() -> tuple[object, object]:
            later = delaying_celery.send_task("interop.seen", queue=queue, countdown=2.5)
            kept = delayed_count(rabbit_server)
            now = delaying_celery.send_task("interop.add", [1, 2], queue=queue).get(timeout=60)
            assert not later.ready()
            seen = later.get(timeout=60)
            delaying_celery.backend.result_consumer.stop()
            return kept, (now, seen)

        kept, (now, seen) = await asyncio.to_thread(send)
    assert (kept, now) == (1, 3)
    assert seen["queue"] == queue
    assert not [name for name in seen["headers"] if re.match("x-", name)]


def delayed_count(server: RabbitServer) -> int:
    """How many messages are in the queue for delays of two and three seconds; Celery's publish is not confirmed."""
    with closing(server.client()) as connection:
        for _ in range(100):
            count: int = connection.channel().queue_declare("celery_delayed_1", passive=True).message_count
            if count:
                return count
            time.sleep(0.01)
    return 0
