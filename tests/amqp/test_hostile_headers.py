"""Whatever stands in a content header, it costs the message that it belongs to, and nothing else."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import amqp
from celeriac import Celeriac
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from celeriac.testing.steps import bury_numbers, numbered, publish_numbers, soon, take_some
from celeriac.wire.envelope import Route, Unreadable
from tests.amqp.conftest import MakeBroker
from tests.amqp.forging import Forger
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer

PATIENCE = 60.0


@pytest.fixture
async def forger(rabbit_server: RabbitServer) -> AsyncIterator[Forger]:
    async with Forger(rabbit_server.port, seed=20260102) as forger:
        yield forger


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said about connections."""
    caplog.set_level(logging.WARNING, "celeriac.rabbitmq")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "celeriac.rabbitmq"]


def app_on(url: str, queue: str, backend: str = "rpc://") -> Celeriac:
    app = Celeriac("hostile", broker=url, backend=backend, default_queue=queue)

    async def same(value: int) -> int:
        return value

    app.register("same", same)
    return app


async def test_a_worker_outlives_every_header(
    rabbit_url: str, forger: Forger, queue: str, warnings: Callable[[], list[str]]
) -> None:
    sender = app_on(rabbit_url, queue, "disabled://")
    app = app_on(forger.url(), queue)
    async with sender, app, app.worker(concurrency=5) as worker:
        await worker.ready()
        assert await (await app.send_task("same", [0])).wait(timeout=PATIENCE) == 0
        forger.forging = True
        await sender.send_many([sender.call("same", [number]) for number in range(150)])
        while forger.forged < 150:  # noqa: ASYNC110 - nobody else knows
            await asyncio.sleep(0.01)
        forger.forging = False
        assert await (await app.send_task("same", [1])).wait(timeout=PATIENCE) == 1
        await app.connections().broker.purge("celeriac.dead")
    assert forger.accepted == 1
    assert warnings() == []


@pytest.mark.parametrize("backend", ["rpc://", "amqp"])
async def test_a_client_that_waits_outlives_every_header(
    rabbit_url: str, forger: Forger, queue: str, backend: str, warnings: Callable[[], list[str]]
) -> None:
    urls = [url if backend == "amqp" else backend for url in (rabbit_url, forger.url())]
    other, app = app_on(rabbit_url, queue, urls[0]), app_on(forger.url(), queue, urls[1])
    async with other, app, other.worker(concurrency=5):
        assert await (await app.send_task("same", [0])).wait(timeout=PATIENCE) == 0
        forger.forging = True
        sent = await asyncio.gather(*[app.send_task("same", [number]) for number in range(40)])
        waiting = [asyncio.create_task(result.wait(timeout=PATIENCE)) for result in sent]
        async with asyncio.timeout(PATIENCE):
            while forger.forged < 20:  # noqa: ASYNC110 - nobody else knows
                await asyncio.sleep(0.01)
        forger.forging = False
        for wait in waiting:
            wait.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await (await app.send_task("same", [1])).wait(timeout=PATIENCE) == 1
    assert forger.accepted == 1
    assert warnings() == []


async def test_who_looks_into_queues_outlives_every_header(
    make_broker: MakeBroker, forger: Forger, queue: str, unique: Callable[[str], str]
) -> None:
    prefix = unique("hostile") + "."
    broker, looking = make_broker(prefix=prefix), make_broker(forger.url(), prefix=prefix)
    await bury_numbers(broker, queue, range(5))
    await publish_numbers(broker, queue, range(5))
    await broker.publish(numbered(1), Route(queue, queue=queue, due=4e9))
    forger.forging = True
    for _ in range(2):
        assert len(await looking.peek(queue)) == 5
        assert len(await looking.dead.list()) == 5
        assert len(await looking.schedule.list(10_000)) >= 1
    assert forger.accepted == 1
    left = [parked.id for parked in await broker.schedule.list(10_000) if parked.queue == queue]
    assert await broker.schedule.delete(left) == 1


def _header(flags: int, content: bytes, size: int = 2) -> bytes:
    return struct.pack(">HHQH", 60, 0, size, flags) + content


def _table(field: bytes) -> bytes:
    return struct.pack(">I", len(field)) + field


def _nested(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


HOSTILE = {
    "a time far away": _header(
        0xA000, b"\x10application/json" + _table(b"\x01tT" + struct.pack(">Q", 2**60))
    ),
    "a time before all times": _header(0x2000, _table(b"\x01tT" + b"\xff" * 8)),
    "a type that is no UTF-8": _header(0x8000, b"\x02\xff\xfe"),
    "a header's name that is no UTF-8": _header(0x2000, _table(b"\x01\xffV")),
    "nothing": _header(0, b""),
    "deep nesting": _header(0x2000, _table(b"\x01n" + _nested(500))),
    "a user, a type and an application": _header(0x0038, b"\x01t\x05guest\x01a"),
    "routing keys of its own queue": None,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_it_is_dead_lettered_and_the_connection_goes_on(
    rabbit_url: str,
    queue: str,
    name: str,
    unique: Callable[[str], str],
    warnings: Callable[[], list[str]],
) -> None:
    broker = AmqpBroker(rabbit_url, prefix=unique("hostile") + ".")
    async with broker.subscribe([queue]) as subscription:
        await send_raw(rabbit_url, queue, HOSTILE[name] or further_keys(queue), b"{}")
        (delivery,) = await take_some(subscription, 1)
        await soon(delivery.receipt.bury("hostile"))
        (letter,) = await broker.dead.list()
        assert letter.queue == queue
        assert letter.reason == "hostile"
        assert (
            letter.envelope.raw if isinstance(letter.envelope, Unreadable) else letter.envelope.body
        ) == b"{}"
        await broker.publish(numbered(1), Route(queue, queue=queue))
        assert len(await take_some(subscription, 5)) == 1
        assert await broker.depth(queue) == 0
    await broker.close()
    assert warnings() == []


def further_keys(queue: str) -> bytes:
    """A header that asks RabbitMQ to put the message into this queue too, wherever else it goes."""
    return write_properties(Properties("application/json", headers={"CC": [queue]}), 2)


async def send_raw(url: str, key: str, header: bytes, body: bytes, exchange: str = "") -> None:
    link = Link(url, timeout=10)
    try:
        await link.publish(exchange, key, header, body)
    finally:
        await link.close()


async def test_a_routing_key_may_be_any_bytes(
    rabbit_url: str, channel: amqp.Channel, make_broker: MakeBroker, queue: str
) -> None:
    broker, key = make_broker(), b"\xff\xfe"
    channel.queue_declare(queue, durable=True, auto_delete=False)
    channel.exchange_declare(f"{queue}.all", "fanout", durable=True, auto_delete=False)
    channel.queue_bind(queue, f"{queue}.all")
    for wants_result in (True, False):
        await send_with_key(rabbit_url, f"{queue}.all", key)
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            await (delivery.receipt.requeue() if wants_result else delivery.receipt.ack())
            if wants_result:
                (delivery,) = await take_some(subscription, 1)
                await delivery.receipt.ack()
    assert await broker.ping()


async def send_with_key(url: str, exchange: str, key: bytes) -> None:
    """Send with a routing key that celeriac itself would not write."""

    link = Link(url, timeout=10)
    try:
        async with link.passing_channel() as channel:
            plain = frames.publish_method(channel.number, exchange, "kk", mandatory=False)
            channel.send(plain.replace(b"\x02kk", b"\x02" + key))
            header = write_properties(Properties("application/json"), 1)
            channel.send(frames.content(channel.number, header, b"1", 131072))
            await channel.call(methods.limit_unsettled(0))
    finally:
        await link.close()


async def test_headers_that_fill_their_frame_are_taken_kept_and_buried(
    rabbit_url: str, queue: str, unique: Callable[[str], str]
) -> None:
    """RabbitMQ adds headers of its own to what it keeps, and then the frame is larger than was agreed on."""
    broker = AmqpBroker(rabbit_url, prefix=unique("hostile") + ".")
    empty = len(write_properties(Properties("application/json", headers={"id": "i", "h": ""}), 2))
    full = Properties("application/json", headers={"id": "i", "h": "x" * (131072 - 8 - empty)})
    async with broker.subscribe([queue]) as subscription:
        await send_raw(rabbit_url, queue, write_properties(full, 2), b"{}")
        for settle in ("requeue", "park", "bury"):
            (delivery,) = await take_some(subscription, 1)
            receipt: Any = delivery.receipt
            arguments: tuple[Any, ...] = {"requeue": (), "park": (0.0,), "bury": ("full",)}[settle]
            await soon(getattr(receipt, settle)(*arguments))
        (letter,) = await broker.dead.list()
        assert (letter.queue, letter.reason) == (queue, "full")
    await broker.close()


async def test_a_lost_connection_is_logged_once(
    rabbit_server: RabbitServer, queue: str, warnings: Callable[[], list[str]]
) -> None:
    async with Proxy(rabbit_server.port) as proxy:
        broker = AmqpBroker(proxy.url())
        await broker.publish(numbered(1), Route(queue, queue=queue))
        proxy.cut()
        while not warnings():  # noqa: ASYNC110 - nobody else knows
            await asyncio.sleep(0.01)
        await broker.publish(numbered(2), Route(queue, queue=queue))
        await broker.close()
    (said,) = warnings()
    assert f":{proxy.port}" in said
    assert "lost" in said
