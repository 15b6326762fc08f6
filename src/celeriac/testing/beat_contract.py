"""The suites of periodic tasks that brokers and boards pass: a test for each sentence of the contracts."""

from __future__ import annotations

import asyncio

import pytest

from celeriac.contracts.board import Board, Mark, Slots
from celeriac.contracts.broker import Beat, Broker, UnmarkingReceipt
from celeriac.contracts.set_aside import Failed
from celeriac.errors import CeleriacError, DeliveryLost
from celeriac.testing.steps import drain, fresh_queue, numbered, take_all
from celeriac.wire.envelope import Envelope, Route

MINUTE = 1_790_000_040.0
"""A slot."""


class SlotsContract:
    """Subclass it and give it the fixtures ``board`` and ``other`` of ``BoardContract``."""

    pytestmark = pytest.mark.asyncio

    async def test_a_later_slot_is_set_and_an_earlier_or_equal_one_is_not(
        self, slots: Slots, other: Board, entry: str
    ) -> None:
        assert other.slots is not None
        assert await slots.last([entry]) == {}
        assert await slots.advance(entry, MINUTE)
        assert not await other.slots.advance(entry, MINUTE)
        assert not await other.slots.advance(entry, MINUTE - 0.001)
        assert await other.slots.advance(entry, MINUTE + 0.001)
        assert await slots.last([entry, f"{entry}2"]) == {entry: MINUTE + 0.001}

    async def test_of_concurrent_calls_one_sets_a_slot(self, slots: Slots, other: Board, entry: str) -> None:
        assert other.slots is not None
        tries = [one.advance(entry, MINUTE) for one in (slots, other.slots) for _ in range(20)]
        assert sum(await asyncio.gather(*tries)) == 1

    async def test_thousands_of_entries_are_read_at_once(self, slots: Slots, entry: str) -> None:
        names = [f"{entry}.{number}" for number in range(2500)]
        await asyncio.gather(*(slots.advance(name, MINUTE + place) for place, name in enumerate(names)))
        assert await slots.last(names) == {name: MINUTE + place for place, name in enumerate(names)}

    @pytest.fixture
    def slots(self, board: Board) -> Slots:
        """Return the slots of the board under test."""
        assert board.slots is not None
        return board.slots

    @pytest.fixture
    def entry(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()


class BeatContract:
    """Subclass it and give it two fixtures of ``BrokerContract``: ``broker``, and ``second`` for the same place."""

    pytestmark = pytest.mark.asyncio

    async def test_a_slot_is_ticked_once_whoever_tries(
        self, broker: Broker, beat: Beat, other: Beat, queue: str
    ) -> None:
        tries = [one.tick(queue, MINUTE, _message(queue, 1)) for one in (beat, other) for _ in range(10)]
        assert sum(await asyncio.gather(*tries)) == 1
        assert not await other.tick(queue, MINUTE - 60, _message(queue, 0))
        assert await other.tick(queue, MINUTE + 60, _message(queue, 2))
        assert await beat.last([queue]) == {queue: MINUTE + 60}
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 2) == [1, 2]

    async def test_many_entries_are_ticked_at_once(self, broker: Broker, beat: Beat, queue: str) -> None:
        count = 1200
        done = [beat.tick(f"{queue}.{number}", MINUTE, _message(queue, number)) for number in range(count)]
        assert all(await asyncio.gather(*done))
        assert await broker.depth(queue) == count
        names = [f"{queue}.{number}" for number in range(count)]
        assert await beat.last(names) == dict.fromkeys(names, MINUTE)

    async def test_without_messages_the_slot_is_noted(
        self, broker: Broker, beat: Beat, other: Beat, queue: str
    ) -> None:
        assert await beat.tick(queue, MINUTE, ())
        assert not await other.tick(queue, MINUTE, _message(queue, 1))
        assert await broker.depth(queue) == 0

    async def test_several_messages_of_a_slot_keep_their_order(
        self, broker: Broker, beat: Beat, queue: str
    ) -> None:
        messages = [message for number in range(3) for message in _message(queue, number)]
        assert await beat.tick(queue, MINUTE, messages)
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 3) == [0, 1, 2]

    async def test_what_is_refused_leaves_the_slot_and_harms_no_other(
        self, broker: Broker, beat: Beat, queue: str
    ) -> None:
        bad = [(Envelope(body=b"", headers={"not": object()}), Route(queue, queue=queue))]
        answers = await asyncio.gather(
            beat.tick(f"{queue}.bad", MINUTE, bad),
            beat.tick(f"{queue}.good", MINUTE, _message(queue, 1)),
            return_exceptions=True,
        )
        assert isinstance(answers[0], CeleriacError)
        assert answers[1] is True
        assert await beat.last([f"{queue}.bad", f"{queue}.good"]) == {f"{queue}.good": MINUTE}
        assert await beat.tick(f"{queue}.bad", MINUTE, _message(queue, 2))

    @pytest.mark.parametrize("kept", [None, "beyond help", Failed("task", "it failed")])
    async def test_a_mark_goes_with_a_message_that_is_settled(
        self, broker: Broker, queue: str, kept: str | Failed | None
    ) -> None:
        marks, mark = broker.board.marks, Mark(queue, "run", "one")
        assert marks is not None
        await marks.put(mark.key, mark.name, mark.value, 600.0)
        await broker.publish_many([*_message(queue, 1), *_message(queue, 2)])
        async with broker.subscribe([queue]) as subscription:
            first, second = await take_all(subscription, 2)
            assert isinstance(first.receipt, UnmarkingReceipt)
            assert isinstance(second.receipt, UnmarkingReceipt)
            await second.receipt.settle_and_unmark(Mark(queue, "run", "another"))
            assert await marks.put(mark.key, mark.name, "later", 600.0) == "one"
            await first.receipt.settle_and_unmark(mark, kept)
            assert await marks.put(mark.key, mark.name, "later", 600.0) == "later"
            with pytest.raises(DeliveryLost):
                await first.receipt.settle_and_unmark(Mark(queue, "run", "later"), kept)
            assert await marks.put(mark.key, mark.name, "last", 600.0) == "later"
        letters = [letter.reason for letter in await broker.dead.list() if letter.queue == queue]
        assert letters == ([kept] if isinstance(kept, str) else [])
        assert await broker.depth(queue) == 0

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()

    @pytest.fixture
    def beat(self, broker: Broker) -> Beat:
        """Return the object under test."""
        assert broker.beat is not None
        return broker.beat

    @pytest.fixture
    def other(self, second: Broker) -> Beat:
        """Return that of another process."""
        assert second.beat is not None
        return second.beat


def _message(queue: str, number: int) -> list[tuple[Envelope, Route]]:
    return [(numbered(number), Route(queue, queue=queue))]
