"""Messages that are reserved before they can start: how many, in what order, and that they go back."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.client.revocations import Revocations
from celeriac.contracts.broker import Subscription
from celeriac.servers.sqlite import SqliteBroker
from celeriac.testing.steps import number_in, publish_numbers
from celeriac.wire.envelope import Envelope, Route

MANY = 2000


@pytest.fixture
def broker(open_broker) -> SqliteBroker:
    return open_broker()


def held(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM celeriac_message WHERE owner IS NOT NULL"
        ).fetchone()
    return int(count)


async def take_until_more_are_held(broker: SqliteBroker, subscription: Subscription) -> int:
    """Deal with messages one by one, until others are reserved beside them; return how many were dealt with."""
    for done in range(1, MANY):
        (delivery,) = await subscription.take(1)
        assert number_in(delivery.envelope) == done - 1
        await delivery.receipt.ack()
        if await broker.depth("q") < MANY - done:
            return done
    raise AssertionError("nothing was ever reserved ahead")


async def test_nothing_is_reserved_ahead_unless_it_is_asked_for(broker):
    await publish_numbers(broker, "q", range(200))
    async with broker.subscribe(["q"]) as subscription:
        for done in range(1, 101):
            (delivery,) = await subscription.take(1)
            assert await broker.depth("q") == 200 - done
            await delivery.receipt.ack()


async def test_what_cannot_start_goes_back_to_the_head_of_its_queue_unmarked(broker, open_broker):
    other = open_broker()
    await publish_numbers(broker, "q", range(MANY))
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription)
        async with asyncio.timeout(60):
            while await broker.depth("q") != MANY - done:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        async with other.subscribe(["q"]) as second:
            deliveries = await second.take(100)
            assert [number_in(delivery.envelope) for delivery in deliveries] == [*range(done, done + 100)]
            assert {(delivery.redelivered, delivery.deliveries) for delivery in deliveries} == {(False, 1)}


async def test_what_is_held_is_64_messages_at_most(broker, file):
    await publish_numbers(broker, "q", range(MANY))
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        for _ in range(300):
            (delivery,) = await subscription.take(1)
            assert held(file) <= 65
            await delivery.receipt.ack()


@pytest.mark.parametrize("verb", ["stop", "let_go"])
async def test_what_is_held_is_given_back_at_once_when_it_is_not_wanted_any_more(broker, verb):
    await publish_numbers(broker, "q", range(MANY))
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription)
        subscription.prefetch = 0
        await getattr(subscription, verb)()
        assert await broker.depth("q") == MANY - done


async def test_what_is_held_of_a_queue_goes_back_when_the_queue_is_dropped(broker):
    await publish_numbers(broker, "q", range(MANY))
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        done = await take_until_more_are_held(broker, subscription)
        await subscription.drop_queue("q")
        assert await broker.depth("q") == MANY - done


async def test_large_messages_are_not_reserved_by_number(broker, file):
    large = Envelope(body=b"x" * 200_000), Route("q", queue="q")
    await broker.publish_many([large] * 100)
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        for _ in range(60):
            (delivery,) = await subscription.take(1)
            assert held(file) <= 1 + 4, "more than 1 MiB is held besides"
            await delivery.receipt.ack()


async def test_a_task_that_was_revoked_while_it_was_held_is_known_when_it_starts(broker):
    await publish_numbers(broker, "q", range(MANY))
    async with broker.subscribe(["q"]) as subscription:
        subscription.prefetch = 64
        await take_until_more_are_held(broker, subscription)
        revocations = Revocations(broker.board, broker.schedule)
        await revocations.add(["one"])
        await asyncio.sleep(0.06)
        await subscription.take(1)
        assert subscription.revision == await revocations.revision()


async def test_a_message_on_its_last_delivery_runs_with_nothing_held_beside_it(file):
    url = f"sqlite:///{file}"
    async with Celeriac("last", url, url, prefetch=64) as app:
        beside: list[int] = []

        @app.task(name="short")
        async def short() -> None:
            return None

        @app.task(name="last")
        async def last() -> None:
            beside.append(held(file))

        await app.send_many([short.call() for _ in range(300)])
        await last.send()
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(
                "UPDATE celeriac_message SET deliveries = ?, redelivered = 1 WHERE id = 301",
                (app.settings.max_deliveries - 1,),
            )
        results = await app.send_many([short.call() for _ in range(300)])
        async with app.worker(concurrency=1):
            await asyncio.gather(*(result.wait(timeout=60) for result in results))
        assert beside == [1]
