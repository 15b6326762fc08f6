"""Results as messages to whoever asked."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import amqp
from celeriac.errors import MalformedMessage
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.rpc_results import RpcBackend
from celeriac.testing.steps import soon
from celeriac.wire.content import Codecs
from celeriac.wire.result import FAILURE, STARTED, SUCCESS, ResultRecord


@pytest.fixture
async def sender(rabbit_url: str) -> AsyncIterator[RpcBackend]:
    backend = RpcBackend(Link(rabbit_url, timeout=5), Codecs())
    yield backend
    await backend.close()


@pytest.fixture
async def worker(rabbit_url: str) -> AsyncIterator[RpcBackend]:
    backend = RpcBackend(Link(rabbit_url, timeout=5), Codecs())
    yield backend
    await backend.close()


async def store(
    worker: RpcBackend, reply_to: str | None, task_id: str, status: str, result: object = None
) -> None:
    record = ResultRecord(task_id=task_id, status=status, result=result, reply_to=reply_to)
    await worker.store(worker.encode(record))


async def test_every_state_reaches_the_sender(sender: RpcBackend, worker: RpcBackend) -> None:
    reply_to = await sender.address()
    async with sender.follow(["a", "b"]) as records:
        await store(worker, reply_to, "a", STARTED, {"pid": 1})
        await store(worker, reply_to, "b", SUCCESS, "grüße")
        await store(worker, reply_to, "a", SUCCESS, 7)
        seen = [(record.task_id, record.status, record.result) async for record in records]
    assert seen == [("a", STARTED, {"pid": 1}), ("b", SUCCESS, "grüße"), ("a", SUCCESS, 7)]
    assert [record and record.result for record in await sender.load(["b", "c", "a"])] == ["grüße", None, 7]


async def test_what_came_before_anybody_asked_is_there(sender: RpcBackend, worker: RpcBackend) -> None:
    reply_to = await sender.address()
    for number in range(300):
        await store(worker, reply_to, f"t{number}", SUCCESS, number)
    async with sender.follow([f"t{number}" for number in range(300)]) as records:
        assert sorted([record.result async for record in records]) == list(range(300))
    await sender.forget(["t1"])
    assert await sender.load(["t1"]) == [None]


async def test_a_success_stays(sender: RpcBackend, worker: RpcBackend) -> None:
    reply_to = await sender.address()
    await store(worker, reply_to, "a", SUCCESS, 1)
    await store(worker, reply_to, "a", FAILURE)
    await store(worker, reply_to, "end", SUCCESS)
    async with sender.follow(["end"]) as records:
        await soon(anext(records))
    (record,) = await sender.load(["a"])
    assert record is not None
    assert (record.status, record.result) == (SUCCESS, 1)


async def test_a_sender_that_left_hinders_nobody(sender: RpcBackend, worker: RpcBackend) -> None:
    reply_to = await sender.address()
    await sender.close()
    await store(worker, reply_to, "a", SUCCESS, 1)
    await store(worker, None, "b", SUCCESS, 1)


async def test_the_queue_goes_with_its_process(sender: RpcBackend, channel: amqp.Channel) -> None:
    reply_to = await sender.address()
    channel.queue_declare(reply_to, passive=True)
    await sender.close()
    with pytest.raises(amqp.NotFound):
        channel.queue_declare(reply_to, passive=True)


async def test_a_reply_that_cannot_be_read_is_told_to_who_waits(
    sender: RpcBackend, channel: amqp.Channel
) -> None:
    reply_to = await sender.address()
    async with sender.follow(["a"]) as records:
        message = amqp.Message(b"{", content_type="application/json", correlation_id="a")
        await asyncio.to_thread(channel.basic_publish, message, "", reply_to)
        with pytest.raises(MalformedMessage):
            await soon(anext(records))
    channel.basic_publish(amqp.Message(b"", content_type="x/y"), "", reply_to)  # and nobody minds this one
    channel.basic_publish(
        amqp.Message(
            b'{"status": "SUCCESS", "result": 5}', content_type="application/json", correlation_id="b"
        ),
        "",
        reply_to,
    )
    async with sender.follow(["b"]) as records:
        assert (await soon(anext(records))).result == 5


async def test_a_queue_that_was_deleted_is_made_again(
    sender: RpcBackend, worker: RpcBackend, channel: amqp.Channel
) -> None:
    reply_to = await sender.address()
    async with sender.follow(["a"]) as records:
        channel.queue_delete(reply_to)
        waiting = asyncio.ensure_future(anext(records))
        while not waiting.done():
            await store(worker, reply_to, "a", SUCCESS, 1)
            await asyncio.sleep(0.01)
        assert (await waiting).result == 1
