"""A publish that returned has arrived; one that has not, raises."""

import asyncio
import time

import pytest

import amqp
from celeriac.errors import BrokerError, BrokerUnavailable, EncodeError
from celeriac.testing.steps import drain, numbered
from celeriac.wire.envelope import Envelope, Route
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer
from tests.servers.proxy import Proxy as SlowLine


async def test_thousands_at_once_on_one_connection(make_broker: MakeBroker, proxy: Proxy, queue: str) -> None:
    broker = make_broker(proxy.url())
    route = Route(queue, queue=queue)
    await asyncio.gather(*[broker.publish(numbered(number), route) for number in range(3000)])
    assert await broker.depth(queue) == 3000
    assert proxy.accepted == 1


async def test_a_queue_that_was_deleted_is_made_again(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    broker = make_broker()
    await broker.publish(numbered(1), Route(queue, queue=queue))
    channel.queue_delete(queue)
    await broker.publish(numbered(2), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        assert await drain(subscription, 1) == [2]


async def test_what_no_queue_takes_raises_and_the_others_do_not(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    channel.exchange_declare(queue, "topic", durable=True, auto_delete=False)
    channel.queue_declare(queue, durable=True, auto_delete=False)
    channel.queue_bind(queue, queue, "good.#")
    broker = make_broker()
    keys = [f"{'bad' if number % 3 == 0 else 'good'}.{number % 2}" for number in range(60)]
    outcomes = await asyncio.gather(
        *[broker.publish(numbered(n), Route(key, exchange=queue)) for n, key in enumerate(keys)],
        return_exceptions=True,
    )
    assert [isinstance(outcome, BrokerError) for outcome in outcomes] == [key[:3] == "bad" for key in keys]
    assert await broker.depth(queue) == 40


async def test_a_full_queue_refuses(make_broker: MakeBroker, channel: amqp.Channel, queue: str) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=limits)
    broker = make_broker()
    await broker.publish(numbered(1), Route(queue, queue=queue))
    with pytest.raises(BrokerError, match="full"):
        await broker.publish(numbered(2), Route(queue, queue=queue))


async def test_a_message_that_is_too_large_raises(make_broker: MakeBroker, queue: str) -> None:
    broker = make_broker()
    await broker.publish(Envelope(body=bytes(900_000)), Route(queue, queue=queue))
    with pytest.raises(EncodeError, match="larger"):
        await broker.publish(Envelope(body=bytes(3_000_000)), Route(queue, queue=queue))
    await broker.publish(numbered(1), Route(queue, queue=queue))
    assert await broker.depth(queue) == 2


async def test_a_name_that_is_too_long_raises_before_anything_is_sent(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with pytest.raises(EncodeError, match="255"):
        await broker.publish(numbered(1), Route("q" * 256, queue="q" * 256))
    with pytest.raises(EncodeError, match="deep"):
        await broker.publish(Envelope(body=b"", headers={"deep": object()}), Route("q", queue="q"))


async def test_a_broker_that_does_not_answer_raises_in_time_and_again(
    make_broker: MakeBroker, proxy: Proxy, queue: str
) -> None:
    broker = make_broker(proxy.url(), timeout=0.5)
    await broker.publish(numbered(1), Route(queue, queue=queue))
    proxy.freeze()
    started = time.monotonic()
    for _ in range(2):
        outcomes = await asyncio.gather(
            *[broker.publish(numbered(2), Route(queue, queue=queue)) for _ in range(20)],
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}
    assert time.monotonic() - started < 8, "one after the other they take 20 seconds"
    with pytest.raises(BrokerUnavailable, match="no answer"):
        await broker.ping()
    proxy.thaw()


async def test_a_connection_that_is_cut_raises_and_the_next_publish_works(
    make_broker: MakeBroker, proxy: Proxy, queue: str
) -> None:
    broker = make_broker(proxy.url())
    await broker.publish(numbered(0), Route(queue, queue=queue))
    for number in range(1, 6):
        proxy.cut()
        while True:
            try:
                await broker.publish(numbered(number), Route(queue, queue=queue))
            except BrokerUnavailable:
                continue
            break
    async with make_broker().subscribe([queue]) as subscription:
        got = await drain(subscription, 6)
    assert set(got) == set(range(6))


async def test_a_message_that_is_too_large_is_the_only_one_refused(
    make_broker: MakeBroker, queue: str
) -> None:
    """RabbitMQ closes the channel over it, and does not say beforehand what is too large."""
    broker = make_broker()
    route = Route(queue, queue=queue)
    await broker.publish(numbered(0), route)
    bodies = [bytes(10)] * 20 + [bytes(3_000_000)] + [bytes(10)] * 20
    outcomes = await asyncio.gather(
        *[broker.publish(Envelope(body=body), route) for body in bodies], return_exceptions=True
    )
    assert "larger" in str(outcomes[20])
    assert not isinstance(outcomes[20], BrokerUnavailable)
    assert [*outcomes[:20], *outcomes[21:]] == [None] * 40
    assert await broker.depth(queue) == 41


async def test_a_line_that_takes_no_more_does_not_hang_who_sends(
    make_broker: MakeBroker, proxy: Proxy, queue: str
) -> None:
    broker = make_broker(proxy.url(), timeout=0.5)
    route = Route(queue, queue=queue)
    await broker.publish(numbered(0), route)
    proxy.freeze()
    started = time.monotonic()
    for _ in range(2):
        outcomes = await asyncio.gather(
            *[broker.publish(Envelope(body=bytes(1_000_000)), route) for _ in range(30)],
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}
    assert time.monotonic() - started < 10
    proxy.thaw()


async def test_a_slow_line_costs_time_and_fails_neither_what_is_large_nor_what_is_beside_it(
    make_broker: MakeBroker, rabbit_server: RabbitServer, queue: str
) -> None:
    async with SlowLine(rabbit_server.port, pace=1_500_000) as line:
        broker = make_broker(f"amqp://guest:guest@127.0.0.1:{line.port}/", timeout=0.5)
        route = Route(queue, queue=queue)
        await broker.publish(numbered(0), route)
        started = time.monotonic()
        await asyncio.gather(
            *[broker.publish(Envelope(body=bytes(size)), route) for size in (1_500_000, 10, 1_500_000, 10)],
            broker.depth(f"{queue}.other"),
        )
        assert time.monotonic() - started > 1.5
    assert await make_broker().depth(queue) == 5
