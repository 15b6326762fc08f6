"""The suite of messages published once that every broker passes: a test for each sentence of the contract."""

from __future__ import annotations

import pytest

from celeriac.contracts.broker import Broker
from celeriac.testing.steps import drain, envelope_of, fresh_queue, numbered, take_all
from celeriac.wire.envelope import Route


class OnceContract:
    """Subclass it and give it two fixtures of ``BrokerContract``: ``broker``, and ``second`` for the same place."""

    pytestmark = pytest.mark.asyncio

    async def test_what_was_published_once_is_not_published_again(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        messages = [(numbered(number), Route(queue, queue=queue)) for number in range(3)]
        assert await broker.publish_once(f"{queue}.a", messages)
        again = await second.publish_once(f"{queue}.a", messages)
        assert await second.publish_once(f"{queue}.b", [(numbered(9), Route(queue, queue=queue))])
        async with broker.subscribe([queue]) as subscription:
            got = await drain(subscription, 7 if again else 4)
        assert again is broker.may_repeat
        assert got == ([0, 1, 2, 0, 1, 2, 9] if again else [0, 1, 2, 9])

    async def test_what_may_be_repeated_comes_as_copies_that_are_told_apart(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        messages = [(numbered(number), Route(queue, queue=queue)) for number in range(2)]
        for publisher in (broker, second):
            await publisher.publish_once(queue, messages)
        async with broker.subscribe([queue]) as subscription:
            deliveries = await take_all(subscription, 4 if broker.may_repeat else 2)
            copies = [envelope_of(delivery).copy for delivery in deliveries]
            for delivery in deliveries:
                await delivery.receipt.ack()
        if not broker.may_repeat:
            assert copies == [None, None]
            return
        known = [copy for copy in copies if copy is not None]
        numbers = [copy.number for copy in known]
        assert {copy.key for copy in known} == {queue}
        assert numbers[0] == numbers[1] != numbers[2] == numbers[3]
        assert [copy.name for copy in known[:2]] == [copy.name for copy in known[2:]]
        assert known[0].name != known[1].name

    async def test_what_was_published_once_is_remembered_for_a_while_after_it_is_settled(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await broker.forget_once(f"{queue}.never")
        messages = [(numbered(1), Route(queue, queue=queue))]
        assert await broker.publish_once(f"{queue}.a", messages)
        remembers = not await second.publish_once(f"{queue}.a", messages)
        await broker.forget_once(f"{queue}.a")
        assert await second.publish_once(f"{queue}.a", messages) is not remembers

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()
