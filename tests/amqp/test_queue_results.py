"""Results in a queue each, shared with gocelery."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

import amqp
from celeriac import Celeriac
from celeriac.errors import BackendError, BackendUnavailable, EncodeError
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.queue_results import AmqpBackend
from celeriac.testing.steps import soon
from celeriac.wire.content import Codecs
from celeriac.wire.result import FAILURE, STARTED, SUCCESS, ResultRecord
from tests.amqp.proxy import Proxy
from tests.wire.captures import FIXTURES

GOCELERY = {"x-expires": 86400000}
"""What gocelery declares its result queues with."""

CAPTURE = json.loads((FIXTURES / "msg.args.gocelery-v1.amqp.json").read_text())["raw"]


def declare(channel: amqp.Channel, task_id: str) -> str:
    """Declare the queue of a result, as gocelery does before it reads or writes one."""
    queue = task_id.replace("-", "")
    channel.queue_declare(queue, durable=True, auto_delete=True, arguments=GOCELERY)
    return queue


def gocelery_result(task_id: str, result: object) -> amqp.Message:
    """What a gocelery worker stores."""
    body = {"task_id": task_id, "status": "SUCCESS", "traceback": None, "result": result, "children": None}
    return amqp.Message(json.dumps(body), content_type="application/json", delivery_mode=2)


def record(task_id: str, status: str, result: object = None) -> ResultRecord:
    return ResultRecord(task_id=task_id, status=status, result=result)


@pytest.fixture
def app(rabbit_url: str, queue: str) -> Celeriac:
    app = Celeriac("amqp", broker=rabbit_url, backend=rabbit_url, default_queue=queue)
    app.register("tasks.add", lambda x, y: x + y)
    return app


async def test_a_result_of_a_gocelery_worker_is_read(app: Celeriac, channel: amqp.Channel) -> None:
    async with app:
        task = await app.send_task("tasks.add", args=[2, 3])
        waiting = asyncio.create_task(task.wait(timeout=60))
        channel.basic_publish(gocelery_result(task.id, 5.0), routing_key=declare(channel, task.id))
        assert await waiting == 5.0
        assert await task.wait(timeout=60) == 5.0


async def test_a_task_of_a_gocelery_client_runs_and_the_client_reads_its_result(
    app: Celeriac, channel: amqp.Channel, queue: str, unique: Callable[[str], str]
) -> None:
    task_id = unique("go")
    body = json.loads(base64.b64decode(CAPTURE["body_base64"])) | {"id": task_id}
    got: list[amqp.Message] = []
    channel.basic_consume(declare(channel, task_id), callback=got.append)
    channel.queue_declare(queue, durable=True, auto_delete=False)
    channel.basic_publish(
        amqp.Message(json.dumps(body), content_type="application/json", delivery_mode=2), routing_key=queue
    )
    async with app, app.worker():
        while not got:
            await asyncio.to_thread(channel.connection.drain_events, timeout=20)
    (message,) = got
    meta: dict[str, Any] = json.loads(message.body)
    assert (meta["task_id"], meta["status"], meta["result"]) == (task_id, "SUCCESS", 5)
    assert message.properties["content_type"] == "application/json"
    assert message.properties["delivery_mode"] == 2


async def test_a_queue_holds_the_latest_record_alone(
    rabbit_url: str, channel: amqp.Channel, unique: Callable[[str], str]
) -> None:
    backend, task_id = AmqpBackend(Link(rabbit_url, timeout=5), Codecs()), unique("id")
    for status in (STARTED, FAILURE, SUCCESS, STARTED):
        await backend.store(backend.encode(record(task_id, status)))
    assert channel.queue_declare(task_id.replace("-", ""), passive=True).message_count == 1
    # Two who wrote at the same time leave one each.
    channel.basic_publish(gocelery_result(task_id, 1), routing_key=task_id.replace("-", ""))
    (found,) = await backend.load([task_id])
    assert found is not None
    assert (found.status, found.result) == (SUCCESS, None)
    await backend.forget([task_id])
    with pytest.raises(amqp.NotFound):
        channel.queue_declare(task_id.replace("-", ""), passive=True)
    await backend.close()


async def test_a_queue_that_was_declared_otherwise_is_named_and_hinders_no_other(
    rabbit_url: str, channel: amqp.Channel, unique: Callable[[str], str]
) -> None:
    backend = AmqpBackend(Link(rabbit_url, timeout=5), Codecs())
    bad, good = unique("bad"), unique("good")
    channel.queue_declare(
        bad.replace("-", ""), durable=True, auto_delete=True, arguments={"x-expires": 60000}
    )
    outcomes = await asyncio.gather(
        *[backend.store(backend.encode(record(task_id, SUCCESS))) for task_id in (bad, good)],
        return_exceptions=True,
    )
    assert outcomes[1] is None
    for part in (bad.replace("-", ""), "x-expires", "60000", "86400000", "result_expires"):
        assert part in str(outcomes[0])
    with pytest.raises(BackendError, match="x-expires"):
        await backend.load([good, bad])
    async with backend.follow([bad]) as records:
        with pytest.raises(BackendError, match="x-expires"):
            await soon(anext(records))
    assert [found and found.status for found in await backend.load([good])] == [SUCCESS]
    with pytest.raises(EncodeError, match="255"):
        backend.encode(record("i" * 256, SUCCESS))
    await backend.close()


async def test_who_waits_hears_of_it_after_an_outage(
    rabbit_url: str, proxy: Proxy, unique: Callable[[str], str]
) -> None:
    client = AmqpBackend(Link(proxy.url(), timeout=5), Codecs())
    worker, task_id = AmqpBackend(Link(rabbit_url, timeout=5), Codecs()), unique("id")
    async with client.follow([task_id]) as records:
        await worker.store(worker.encode(record(task_id, STARTED)))
        assert (await soon(anext(records))).status == STARTED
        proxy.refuse()
        with pytest.raises(BackendUnavailable):
            await client.load([task_id])
        await worker.store(worker.encode(record(task_id, SUCCESS, 7)))
        proxy.accept()
        assert (await soon(anext(records))).result == 7
    await client.close()
    await worker.close()


async def test_the_connection_is_the_brokers_where_both_are_one_rabbitmq(app: Celeriac, proxy: Proxy) -> None:
    async with app:
        backend = app.connections().backend
        assert isinstance(backend, AmqpBackend)
        assert backend._link is app.connections().broker.link  # type: ignore[attr-defined]
    elsewhere = Celeriac("amqp", broker=proxy.url(), backend=proxy.url("?heartbeat=5"))
    async with elsewhere:
        assert "in a queue each" in await elsewhere.connections().backend.ping()
        assert "RabbitMQ" in await elsewhere.connections().broker.ping()
        assert proxy.open_lines == 2
