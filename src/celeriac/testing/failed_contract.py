"""The suite of every broker's failed list: a test for each sentence of the contract."""

from __future__ import annotations

import time

import pytest

from celeriac.contracts.broker import Broker, Delivery, Surveyed
from celeriac.contracts.set_aside import DeadLetter, Failed
from celeriac.errors import DeliveryLost
from celeriac.testing.steps import envelope_of, fresh_queue, number_in, publish_numbers, take_all
from celeriac.wire.envelope import Envelope, Route


class FailedContract:
    """Subclass it and give it fixtures.

    ``broker``: the broker under test, on a place that holds nothing. ``capped``: one on the same place, of which at
    most three failed messages are kept.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_failed_message_is_kept_whole(self, broker: Broker) -> None:
        queue = fresh_queue()
        sent = Envelope(
            body=b'[["\xc3\xa4"], {}, {}]',
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "shop.pay", "id": "a", "deep": {"x": [1, None]}},
            correlation_id="a",
            reply_to="answers",
            priority=3,
        )
        before = time.time()
        [delivery] = await _deliver(broker, queue, [sent])
        await delivery.receipt.fail(Failed("a", "ValueError('no')"))
        with pytest.raises(DeliveryLost):
            await delivery.receipt.requeue()
        [letter] = await broker.failed.list()
        assert (letter.id, letter.queue, letter.reason) == ("a", queue, "ValueError('no')")
        assert before - 5 <= letter.died_at <= time.time() + 5
        kept = _envelope(letter)
        for field in (
            "body",
            "content_type",
            "content_encoding",
            "headers",
            "correlation_id",
            "reply_to",
            "priority",
        ):
            assert getattr(kept, field) == getattr(sent, field)
        assert await broker.depth(queue) == 0

    async def test_entries_are_found_by_their_tasks(self, broker: Broker) -> None:
        await _fail(broker, "abc")
        assert [letter.id for letter in await broker.failed.list()] == ["a", "b", "c"]
        assert [letter.id for letter in await broker.failed.list(1, 1)] == ["b"]
        assert {letter.id for letter in await broker.failed.find(["c", "none", "a"])} == {"a", "c"}
        assert await broker.failed.find([]) in ([], ())
        assert await broker.failed.delete(["a", "none"]) == 1
        assert await broker.failed.count() == 2
        if isinstance(broker, Surveyed):
            assert (await broker.survey([])).failed == 2

    async def test_of_a_task_that_failed_twice_the_later_message_counts(self, broker: Broker) -> None:
        await _fail(broker, "aba")
        [letter] = await broker.failed.find(["a"])
        assert number_in(letter.envelope) == 2
        await broker.failed.delete(["a"])
        assert [letter.id for letter in await broker.failed.list()] == ["b"]

    async def test_what_was_acknowledged_before_is_kept_too(self, broker: Broker) -> None:
        queue = fresh_queue()
        await publish_numbers(broker, queue, [7])
        async with broker.subscribe([queue]) as subscription:
            [delivery] = await take_all(subscription, 1)
            await delivery.receipt.ack(surely=True)
            await broker.failed.add(envelope_of(delivery), queue, Failed("a", "lone \x00 error"))
        [letter] = await broker.failed.list()
        assert (letter.id, letter.queue, number_in(letter.envelope)) == ("a", queue, 7)

    async def test_the_oldest_go_first(self, broker: Broker, capped: Broker) -> None:
        await _fail(capped, "abcde")
        assert [letter.id for letter in await broker.failed.list()] == ["c", "d", "e"]


async def _fail(broker: Broker, ids: str) -> None:
    """Have the messages 0, 1, ... of a new queue fail, one after the other, as tasks with these ids."""
    queue = fresh_queue()
    await publish_numbers(broker, queue, range(len(ids)))
    async with broker.subscribe([queue]) as subscription:
        for id, delivery in zip(ids, await take_all(subscription, len(ids)), strict=True):
            await delivery.receipt.fail(Failed(id, "no"))


async def _deliver(broker: Broker, queue: str, sent: list[Envelope]) -> list[Delivery]:
    for envelope in sent:
        await broker.publish(envelope, Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        return await take_all(subscription, len(sent))


def _envelope(letter: DeadLetter) -> Envelope:
    assert isinstance(letter.envelope, Envelope)
    return letter.envelope
