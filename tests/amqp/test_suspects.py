"""Deliveries that were handed out before: whether a worker works on them is found out while others start."""

from __future__ import annotations

import asyncio

import pytest

import amqp
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.servers.rabbitmq.orphans import NoticeTimes
from celeriac.testing.steps import publish_numbers, soon, take_some
from tests.amqp.conftest import MakeBroker, until, until_taken_by
from tests.amqp.proxy import Proxy

TIMES = NoticeTimes(term=3.0, grace=1.0, news=2.0)


@pytest.fixture
def behind(make_broker: MakeBroker, proxy: Proxy) -> AmqpBroker:
    return make_broker(proxy.url(), notices=TIMES)


async def publish_to_one_that_dies(broker: AmqpBroker, channel: amqp.Channel, queue: str) -> None:
    """Publish a message and have it handed out again: no worker noted that it gave it back."""
    await publish_numbers(broker, queue, [1])
    assert channel.basic_get(queue) is not None
    channel.connection.close()


async def test_each_message_of_a_cut_line_waits_for_notice(
    make_broker: MakeBroker, behind: AmqpBroker, proxy: Proxy, queue: str
) -> None:
    """Lines that are cut one soon after the other, as where a proxy ends its connections in turn."""
    near = make_broker(notices=TIMES)
    async with behind.subscribe([queue]) as far_one, near.subscribe([queue]) as near_one:
        for number in (1, 2):
            await publish_numbers(near, queue, [number])
            (held,) = await soon(take_some(far_one, 1))
            waiting = asyncio.create_task(near_one.take(1))
            proxy.cut()
            # Where it comes back to the one that holds it, that goes on; else the other puts it off, or drops it.
            await asyncio.sleep(TIMES.news + 0.5)
            assert not waiting.done(), f"message {number} was handed out though its worker lives"
            await held.receipt.ack()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    assert await near.depth(queue) == 0


async def test_a_fresh_message_does_not_wait_behind_a_suspect(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    broker = make_broker(notices=TIMES)
    await publish_to_one_that_dies(broker, channel, queue)
    loop = asyncio.get_running_loop()
    async with broker.subscribe([queue]) as subscription:
        began = loop.time()
        first = asyncio.create_task(subscription.take(2))
        await until(lambda: bool(subscription.held()))
        await publish_numbers(broker, queue, [2])
        (fresh,) = await soon(first)
        assert not fresh.redelivered
        assert loop.time() - began < TIMES.news - 0.5
        assert [delivery.redelivered for delivery in subscription.held()] == [True]
        (suspect,) = await soon(subscription.take(2))
        assert suspect.redelivered
        assert loop.time() - began >= TIMES.news - 0.1
        for delivery in (fresh, suspect):
            await delivery.receipt.ack()


async def test_what_was_given_back_does_not_wait(make_broker: MakeBroker, queue: str) -> None:
    first, second = make_broker(notices=TIMES), make_broker(notices=TIMES)
    await publish_numbers(first, queue, [1])
    async with second.subscribe([queue]) as other, first.subscribe([queue]) as subscription:
        (taken,) = await soon(take_some(subscription, 1))
        waiting = asyncio.create_task(other.take(1))
        await until_taken_by(first, queue, 2)
        began = asyncio.get_running_loop().time()
        await taken.receipt.requeue()
        (again,) = await soon(waiting)
        assert asyncio.get_running_loop().time() - began < TIMES.news - 0.5
        await again.receipt.ack()


async def test_a_second_copy_is_dropped_when_the_first_has_ended(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    """A message that is put off is twice in RabbitMQ where its acknowledgement is lost with the line."""
    times = NoticeTimes(term=3.0, grace=1.0, news=0.1)
    broker, other = make_broker(notices=times), make_broker(notices=times)
    await publish_to_one_that_dies(broker, channel, queue)
    async with broker.subscribe([queue]) as subscription, other.subscribe([queue]) as others:
        (taken,) = await soon(take_some(subscription, 1))
        rerouting, message = subscription._rerouting, taken.receipt.message
        assert await rerouting.delay(message, queue, rerouting._clock.now() + 0.5, same=True)
        await taken.receipt.ack()
        await subscription.stop()
        taking = asyncio.create_task(others.take(1))
        async with asyncio.timeout(60):
            while await broker.schedule.list(limit=10) or await broker.depth(queue) or others.held():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not taking.done()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


async def test_a_worker_that_stops_gives_suspects_back(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    broker = make_broker(notices=TIMES)
    await publish_to_one_that_dies(broker, channel, queue)
    async with broker.subscribe([queue]) as subscription:
        taking = asyncio.create_task(subscription.take(1))
        await until(lambda: bool(subscription.held()))
        await subscription.stop()
        assert await taking == []
        assert await broker.depth(queue) == 1
