"""The suite of parked messages that every broker passes: a test for each sentence of the contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from celeriac.contracts.broker import Broker, Parked
from celeriac.errors import DeliveryLost
from celeriac.testing.steps import (
    drain,
    envelope_of,
    fresh_queue,
    number_in,
    number_of,
    numbered,
    publish_numbers,
    take_everything,
    take_some,
)
from celeriac.wire.envelope import Route


class ScheduleContract:
    """Subclass it and give it two fixtures.

    ``broker``: the broker under test, on a place that holds nothing. ``second``: another connection to the same
    place, as another process would have. The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    # --- parking what was taken ----------------------------------------------------------------------------

    async def test_what_is_parked_is_seen_by_every_connection(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        due = time.time() + 60
        await _park(broker, queue, [(1, due)])
        (parked,) = await second.schedule.list()
        assert (number_in(parked.envelope), parked.queue) == (1, queue)
        assert parked.due == pytest.approx(due, abs=0.001)
        assert await second.schedule.count() == 1

    async def test_the_next_one_comes_first(self, broker: Broker, queue: str) -> None:
        now = time.time()
        await _park(broker, queue, [(2, now + 200), (3, now + 300), (1, now + 100)])
        parked = await broker.schedule.list()
        assert _numbers(parked) == [1, 2, 3]
        assert _numbers(await broker.schedule.list(limit=2)) == [1, 2]
        assert _numbers(await broker.schedule.list(limit=2, offset=2)) == [3]
        assert await broker.schedule.list(offset=3) == []
        assert len({entry.id for entry in parked}) == 3

    async def test_what_waits_or_was_taken_is_not_parked(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1, 2])
        async with broker.subscribe([queue]) as subscription:
            await take_some(subscription, 1)
            assert (await broker.schedule.list(), await broker.schedule.count()) == ([], 0)

    async def test_a_deleted_one_never_comes(self, broker: Broker, second: Broker, queue: str) -> None:
        due = time.time() + 1.5
        await _park(broker, queue, [(1, due), (2, due), (3, due)])
        ids = {number_in(parked.envelope): parked.id for parked in await second.schedule.list()}
        assert await second.schedule.delete([ids[1], ids[3], "no-such-entry"]) == 2
        assert await second.schedule.delete([ids[1]]) == 0
        assert _numbers(await broker.schedule.list()) == [2]
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 1) == [2]
            await publish_numbers(broker, queue, [9])
            assert await drain(subscription, 1) == [9]

    async def test_an_entry_ends_when_it_is_due(self, broker: Broker, second: Broker, queue: str) -> None:
        await _park(broker, queue, [(1, time.time() + 1)])
        (entry,) = await broker.schedule.list()
        async with second.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            assert await broker.schedule.delete([entry.id]) == 0
            assert await broker.schedule.count() == 0
            await delivery.receipt.ack()

    async def test_parking_again_is_another_entry(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            for _ in range(3):
                (delivery,) = await take_some(subscription, 1)
                await delivery.receipt.park(time.time() + 0.05)
                with pytest.raises(DeliveryLost):
                    await delivery.receipt.ack()
            assert await drain(subscription, 1) == [1]

    async def test_a_parked_message_is_not_marked_as_redelivered(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            await delivery.receipt.park(time.time() + 0.1)
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
        assert (delivery.redelivered, delivery.deliveries) == (False, 1)

    # --- publishing for later ------------------------------------------------------------------------------

    async def test_a_message_for_later_stands_in_nobodys_way(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        async with second.subscribe([queue]) as subscription:
            tomorrow = time.time() + 86400
            await broker.publish_many([(numbered(n), _to(queue, tomorrow)) for n in range(3000)])
            await publish_numbers(broker, queue, [9])
            assert [number_of(delivery) for delivery in await take_some(subscription, 100)] == [9]
            assert await second.depth(queue) == 0
            assert await second.schedule.count() == 3000
            assert _numbers(await second.schedule.list(limit=3)) == [0, 1, 2]

    async def test_it_comes_in_time_and_as_it_was_sent(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        async with second.subscribe([queue]) as subscription:
            waiting = asyncio.create_task(take_some(subscription, 1))
            await second.depth(queue)
            due = time.time() + 0.4
            await broker.publish(numbered(1, priority=3), _to(queue, due))
            (delivery,) = await waiting
            assert due - 0.01 <= time.time() < due + 1
            envelope = envelope_of(delivery)
            assert (envelope.body, envelope.priority, envelope.routing_key) == (b"1", 3, queue)
            assert (delivery.queue, delivery.redelivered, delivery.deliveries) == (queue, False, 1)
            await delivery.receipt.ack()
        assert (await broker.depth(queue), await broker.schedule.count()) == (0, 0)

    async def test_many_come_once_each(self, broker: Broker, second: Broker, queue: str) -> None:
        async with broker.subscribe([queue]) as one, second.subscribe([queue]) as other:
            due = time.time() + 0.5
            await asyncio.gather(
                *[broker.publish(numbered(n), _to(queue, due + n % 10 / 20)) for n in range(400)]
            )
            got = await take_everything([one, other], 400)
        assert sorted(got) == list(range(400))
        assert (await broker.depth(queue), await broker.schedule.count()) == (0, 0)

    async def test_one_whose_time_is_past_waits_in_its_queue(self, broker: Broker, queue: str) -> None:
        async with broker.subscribe([queue]) as subscription:
            await broker.publish(numbered(1), _to(queue, time.time() - 60))
            assert await broker.depth(queue) == 1
            assert await drain(subscription, 1) == [1]

    async def test_without_a_taker_it_is_kept_too(self, broker: Broker, second: Broker, queue: str) -> None:
        await broker.publish(numbered(1), _to(queue, time.time() + 60))
        assert await second.depth(queue) + await second.schedule.count() == 1
        assert queue in await second.queues()

    async def test_a_mixed_batch(self, broker: Broker, queue: str) -> None:
        async with broker.subscribe([queue]) as subscription:
            due = time.time() + 1
            routes: Sequence[Route] = [_to(queue, due), Route(queue, queue=queue)]
            await broker.publish_many([(numbered(n), routes[n % 2]) for n in range(20)])
            assert await drain(subscription, 10) == list(range(1, 20, 2))
            assert sorted(await drain(subscription, 10)) == list(range(0, 20, 2))

    async def test_deleted_before_its_time(self, broker: Broker, second: Broker, queue: str) -> None:
        async with broker.subscribe([queue]):
            await broker.publish(numbered(1), _to(queue, time.time() + 60))
            (entry,) = await second.schedule.list()
            assert await second.schedule.delete([entry.id]) == 1
            assert (await broker.schedule.count(), await broker.depth(queue)) == (0, 0)

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()


async def _park(broker: Broker, queue: str, times: Sequence[tuple[int, float]]) -> None:
    """Publish a numbered message for each, take it and park it until its time."""
    await publish_numbers(broker, queue, [number for number, _ in times])
    async with broker.subscribe([queue]) as subscription:
        for _, due in times:
            (delivery,) = await take_some(subscription, 1)
            await delivery.receipt.park(due)


def _to(queue: str, due: float) -> Route:
    return Route(queue, queue=queue, due=due)


def _numbers(parked: Sequence[Parked]) -> list[int]:
    return [number_in(entry.envelope) for entry in parked]
