"""Messages that are reserved before they can start: how many, in what order, and that they go back."""

import asyncio

import pytest

from celeriac import Celeriac
from celeriac.client.revocations import Revocations
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.subscription import RedisSubscription
from celeriac.wire.envelope import Route
from celeriac.wire.frame import DELIVERIES_HEADER
from tests.redis.messages import message, number_of, route

MANY = 2000


async def publish(broker: RedisBroker, queue: str, count: int = MANY, **fields: object) -> None:
    await broker.publish_many([(message(number, **fields), route(queue)) for number in range(count)])


async def take_until_more_are_held(broker: RedisBroker, subscription: RedisSubscription, queue: str) -> int:
    """Deal with messages one by one, until others are reserved beside them; return how many were dealt with."""
    for done in range(1, MANY):
        (delivery,) = await subscription.take(1)
        assert number_of(delivery.envelope) == done - 1
        await delivery.receipt.ack()
        if await broker.depth(queue) < MANY - done:
            return done
    raise AssertionError("nothing was ever reserved ahead")


async def until_waiting(broker: RedisBroker, queue: str, count: int) -> None:
    async with asyncio.timeout(60):
        while await broker.depth(queue) != count:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)


async def test_nothing_is_reserved_ahead_unless_it_is_asked_for(broker, queue):
    await publish(broker, queue, 200)
    async with broker.subscribe([queue]) as subscription:
        for done in range(1, 101):
            (delivery,) = await subscription.take(1)
            assert await broker.depth(queue) == 200 - done
            await delivery.receipt.ack()


async def test_what_cannot_start_goes_back_to_the_head_of_its_queue_unmarked(make_broker, queue):
    broker, other = make_broker(), make_broker()
    await publish(broker, queue)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription, queue)
        await until_waiting(broker, queue, MANY - done)
        async with other.subscribe([queue]) as second:
            deliveries = await second.take(100)
            assert [number_of(delivery.envelope) for delivery in deliveries] == [*range(done, done + 100)]
            assert {(delivery.redelivered, delivery.deliveries) for delivery in deliveries} == {(False, 1)}


async def test_what_is_held_is_64_messages_at_most(broker, queue, client, prefix):
    await publish(broker, queue)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        for _ in range(300):
            (delivery,) = await subscription.take(1)
            assert client.hlen(prefix + "unacked") <= 65
            await delivery.receipt.ack()


@pytest.mark.parametrize("verb", ["stop", "let_go"])
async def test_what_is_held_is_given_back_at_once_when_it_is_not_wanted_any_more(broker, queue, verb):
    await publish(broker, queue)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription, queue)
        subscription.prefetch = 0
        await getattr(subscription, verb)()
        assert await broker.depth(queue) == MANY - done


async def test_what_is_held_of_a_queue_goes_back_when_the_queue_is_dropped(broker, queue):
    await publish(broker, queue)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription, queue)
        await subscription.drop_queue(queue)
        assert await broker.depth(queue) == MANY - done


async def test_large_messages_are_not_reserved_by_number(broker, queue, client, prefix):
    await publish(broker, queue, 200, body=b"x" * 300_000)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        for _ in range(60):
            (delivery,) = await subscription.take(1)
            assert client.hlen(prefix + "unacked") <= 1 + 3, "more than 1 MiB is held besides"
            await delivery.receipt.ack()


async def test_a_task_that_was_revoked_while_it_was_held_is_known_when_it_starts(broker, queue):
    await publish(broker, queue)
    async with broker.subscribe([queue]) as subscription:
        subscription.prefetch = 64
        await take_until_more_are_held(broker, subscription, queue)
        revocations = Revocations(broker.board, broker.schedule)
        await revocations.add(["one"])
        await asyncio.sleep(0.06)
        await subscription.take(1)
        assert subscription.revision == await revocations.revision()


@pytest.mark.parametrize("prefetch", [0, 64])
async def test_a_message_on_its_last_delivery_runs_with_nothing_held_beside_it(
    redis_url, redis_server, unique, prefetch
):
    queue = unique("last")
    async with Celeriac(
        "last", redis_url, redis_url, default_queue=queue, key_prefix=f"{queue}:", prefetch=prefetch
    ) as app:
        held: list[int] = []

        @app.task(name="short")
        async def short() -> None:
            return None

        @app.task(name="last")
        async def last() -> None:
            with redis_server.client() as client:
                held.append(client.hlen(f"{queue}:unacked"))

        calls = [short.call() for _ in range(300)]
        await app.send_many(calls)
        broker = app.connections().broker
        headers = {"task": "last", "id": unique("id"), DELIVERIES_HEADER: app.settings.max_deliveries - 1}
        await broker.publish(message(body=b"[[], {}, {}]", headers=headers), Route(queue, queue=queue))
        results = await app.send_many([short.call() for _ in range(300)])
        async with app.worker(concurrency=1):
            await asyncio.gather(*(result.wait(timeout=60) for result in results))
        assert held == [1]
