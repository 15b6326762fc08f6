"""The suite of removals that every broker with this ability passes: a test for each sentence of the contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from celeriac.contracts.broker import Broker
from celeriac.contracts.removal import STEP, Removing, Unwanted
from celeriac.testing.broker_contract import Plant
from celeriac.testing.steps import drain, fresh_queue, number_in, numbered, publish_numbers, soon, take_some
from celeriac.wire.envelope import Envelope, Route, Unreadable


class RemovalContract:
    """Subclass it and give it three fixtures.

    ``broker``: the broker under test, on a place that holds nothing. ``second``: another connection to the same
    place, as another process would have. ``plant``: as of ``BrokerContract``. The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_is_unwanted_is_removed_and_nothing_else(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, range(6))
        await publish_numbers(broker, f"{queue}.other", [1])
        assert await removed(second, queue, is_one_of([1, 4, 77])) == [1, 4]
        assert await removed(second, queue, is_one_of([1, 4])) == []
        assert (await broker.depth(queue), await broker.depth(f"{queue}.other")) == (4, 1)
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 4) == [0, 2, 3, 5]

    async def test_of_a_long_queue_of_all_priorities(self, broker: Broker, queue: str) -> None:
        many = 3 * STEP
        route = Route(queue, queue=queue)
        await broker.publish_many([(numbered(number, 3 * (number % 3)), route) for number in range(many)])
        odd = await removed(broker, queue, lambda content: number_in(content) % 2 == 1)
        assert sorted(odd) == list(range(1, many, 2))
        async with broker.subscribe([queue]) as subscription:
            left = await drain(subscription, many // 2)
        assert left == sorted(range(0, many, 2), key=lambda number: (number % 3, number))

    async def test_what_is_taken_or_parked_stays(self, broker: Broker, second: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [0, 1])
        async with broker.subscribe([queue]) as subscription:
            taken, parked = await take_some(subscription, 1), await take_some(subscription, 1)
        await parked[0].receipt.park(time.time() + 60)
        await publish_numbers(broker, queue, [2])
        assert await removed(second, queue, lambda _: True) == [2]
        assert await broker.schedule.count() >= 1
        await taken[0].receipt.requeue()
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 1) == [0]

    async def test_a_message_is_removed_or_taken_never_both(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        many = 2 * STEP
        route = Route(queue, queue=queue)
        await broker.publish_many([(numbered(number), route) for number in range(many)])
        taken = list[int]()
        gone = list[int]()

        async def take() -> None:
            async with broker.subscribe([queue]) as subscription:
                while len(taken) + len(gone) < many:
                    waiting = asyncio.ensure_future(subscription.take(7))
                    await asyncio.wait([waiting, removing], return_when=asyncio.FIRST_COMPLETED)
                    if len(taken) + len(gone) >= many:
                        await subscription.stop()
                    for delivery in await waiting:
                        taken.append(number_in(delivery.envelope))
                        await delivery.receipt.ack()

        async def remove() -> None:
            gone.extend(await removed(second, queue, lambda content: number_in(content) % 2 == 1))

        removing = asyncio.create_task(remove())
        await soon(asyncio.gather(removing, take()))
        assert sorted(taken + gone) == list(range(many))
        assert await broker.depth(queue) == 0

    async def test_what_cannot_be_read_is_removed_too(self, broker: Broker, queue: str, plant: Plant) -> None:
        await publish_numbers(broker, queue, [1])
        await plant(queue, b"no frame")
        assert isinstance(broker, Removing)
        found = [
            content
            async for step in broker.remove(queue, lambda content: not _is_numbered(content))
            for content in step.messages
        ]
        assert len(found) == 1
        assert await broker.depth(queue) == 1

    async def test_of_a_queue_that_is_not_there(self, broker: Broker, queue: str) -> None:
        assert await removed(broker, queue, lambda _: True) == []
        assert queue not in await broker.queues()

    async def test_a_removal_that_is_ended_leaves_the_rest(self, broker: Broker, queue: str) -> None:
        many = 2 * STEP
        route = Route(queue, queue=queue)
        await broker.publish_many([(numbered(number), route) for number in range(many)])
        assert isinstance(broker, Removing)
        async for step in broker.remove(queue, lambda _: True):
            assert 0 < len(step.messages) <= step.looked
            assert await broker.depth(queue) == many - len(step.messages)
            break

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()


async def removed(broker: Broker, queue: str, unwanted: Unwanted) -> list[int]:
    """Remove numbered messages; return their numbers."""
    assert isinstance(broker, Removing)
    return [number_in(content) async for step in broker.remove(queue, unwanted) for content in step.messages]


def is_one_of(numbers: Sequence[int]) -> Unwanted:
    """Return what finds messages with these numbers."""
    return lambda content: number_in(content) in numbers


def _is_numbered(content: Envelope | Unreadable) -> bool:
    return isinstance(content, Envelope) and content.body.isdigit()
