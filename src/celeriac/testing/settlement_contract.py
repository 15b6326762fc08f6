"""The suite of every server that lands decisions in one step: a test for each sentence of the contract."""

from __future__ import annotations

import asyncio
import time
import uuid

import msgspec
import pytest

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import Backend, ChordStore, EncodedPart, EncodedResult, UnmarkingBackend
from celeriac.contracts.board import Mark
from celeriac.contracts.broker import Broker, Delivery
from celeriac.contracts.server import EarlySettlements, Landing, Settlements, Settling
from celeriac.contracts.set_aside import Failed
from celeriac.errors import BackendError, DeliveryLost, EncodeError
from celeriac.testing.steps import (
    fresh_queue,
    number_in,
    numbered,
    publish_numbers,
    take_all,
    take_some,
)
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import SUCCESS, ResultRecord

_NO_NAME = "lone \ud800"
"""A name that no server can write."""


class SettlementContract:
    """Subclass it and give it two fixtures, on one server: ``broker`` and ``results``, a result store."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def settlements(self, broker: Broker, results: Backend) -> Settlements:
        """The settlements under test."""
        assert isinstance(broker, Settling)
        made = broker.settlements(results)
        assert made is not None
        return made

    async def test_result_follow_ups_part_and_message_land_together(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        await _chords(results).open([Opening(task_id, 2)])
        landing = Landing(
            delivery.receipt,
            [_result(results, task_id, {"a": [1, None]})],
            [_part(results, task_id, 0)],
            [_message(queue, 7)],
        )
        assert list(await settlements.land(landing)) == []
        [record] = await results.load([task_id])
        assert record is not None
        assert (record.status, record.result) == (SUCCESS, {"a": [1, None]})
        assert await _waiting(broker, queue) == [7]
        standing = await _chords(results).count(_part(results, task_id, 1))
        assert standing.claim is not None
        await _assert_void(delivery)

    async def test_a_message_is_acknowledged_before_its_run_and_its_result_stored_after_that(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        if not isinstance(settlements, EarlySettlements):
            pytest.skip("these settlements leave that to the receipt and the result store")
        queue, task_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        other = await _taken(broker, queue)
        await settlements.acknowledge(delivery.receipt)
        await _assert_void(delivery)
        with pytest.raises(DeliveryLost):
            await settlements.acknowledge(delivery.receipt)
        unnamed = _result(results, _NO_NAME, 1)
        _, refused, _ = await asyncio.gather(
            settlements.store(_result(results, task_id, {"a": 1})),
            settlements.store(unnamed),
            settlements.land(Landing(other.receipt, [_result(results, _id(), 2)])),
            return_exceptions=True,
        )
        assert isinstance(refused, BackendError | EncodeError)
        [record] = await results.load([task_id])
        assert record is not None
        assert (record.status, record.result) == (SUCCESS, {"a": 1})
        await _assert_void(other)
        assert await broker.depth(queue) == 0

    async def test_a_void_receipt_changes_nothing(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        await delivery.receipt.ack()
        landing = Landing(delivery.receipt, [_result(results, task_id, 1)], messages=[_message(queue, 7)])
        with pytest.raises(DeliveryLost):
            await settlements.land(landing)
        assert await results.load([task_id]) == [None]
        assert await broker.depth(queue) == 0

    async def test_what_is_buried_is_a_dead_letter(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        await settlements.land(
            Landing(delivery.receipt, [_result(results, task_id, 1)], buried="beyond help")
        )
        letters = [letter for letter in await broker.dead.list() if letter.queue == queue]
        assert [letter.reason for letter in letters] == ["beyond help"]
        assert (await results.load([task_id]))[0] is not None
        await _assert_void(delivery)

    async def test_the_messages_of_failed_tasks_are_kept(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        await publish_numbers(broker, queue, range(3))
        async with broker.subscribe([queue]) as subscription:
            deliveries = await take_all(subscription, 3)
            landings = [
                Landing(
                    delivery.receipt,
                    [_result(results, f"{task_id}.{number}", number)],
                    messages=[_message(f"{queue}.next", number)],
                    failed=Failed(f"{task_id}.{number}", "no") if number != 1 else None,
                )
                for number, delivery in enumerate(deliveries)
            ]
            await asyncio.gather(*(settlements.land(landing) for landing in landings))
            for delivery in deliveries:
                await _assert_void(delivery)
        ids = [f"{task_id}.{number}" for number in range(3)]
        letters = {letter.id: letter for letter in await broker.failed.find(ids)}
        assert letters.keys() == {ids[0], ids[2]}
        assert [(letter.queue, letter.reason) for letter in letters.values()] == 2 * [(queue, "no")]
        assert number_in(letters[ids[2]].envelope) == 2
        assert None not in await results.load(ids)
        assert sorted(await _waiting(broker, f"{queue}.next")) == [0, 1, 2]

    async def test_of_a_failed_part_of_a_chord_the_message_is_kept_once_it_is_settled(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, chord_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        await _chords(results).open([Opening(chord_id, 1)])
        part = _part(results, chord_id, 0)
        landing = Landing(
            delivery.receipt, [_result(results, chord_id, 1)], [part], failed=Failed(chord_id, "no")
        )
        [standing] = await settlements.land(landing)
        assert standing.claim is not None
        assert not await broker.failed.find([chord_id])
        await _chords(results).finish(standing.claim)
        assert list(await settlements.land(landing)) == []
        assert [letter.id for letter in await broker.failed.find([chord_id])] == [chord_id]

    async def test_the_last_part_is_told_of_the_claim_and_nothing_is_settled_before(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, chord_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        await _chords(results).open([Opening(chord_id, 1)])
        part = _part(results, chord_id, 0)
        landing = Landing(delivery.receipt, [_result(results, chord_id, 1)], [part], [_message(queue, 7)])
        [standing] = await settlements.land(landing)
        assert standing.claim is not None
        assert await broker.depth(queue) == 0
        [again] = await settlements.land(landing)
        assert again.claim == standing.claim
        await _chords(results).finish(standing.claim)
        assert list(await settlements.land(landing)) == []
        assert await _waiting(broker, queue) == [7]
        await _assert_void(delivery)

    async def test_what_is_held_is_stored_and_not_settled(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        delivery = await _taken(broker, queue)
        held = Landing(
            delivery.receipt, [_result(results, task_id, 1)], messages=[_message(queue, 7)], held=True
        )
        assert list(await settlements.land(held)) == []
        assert (await results.load([task_id]))[0] is not None
        assert await broker.depth(queue) == 0
        await settlements.land(Landing(delivery.receipt, messages=[_message(queue, 8)]))
        assert await _waiting(broker, queue) == [8]
        await _assert_void(delivery)

    async def test_a_mark_goes_with_the_message_and_not_before(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, mark, other = fresh_queue(), Mark(_id(), "run", "one"), Mark(_id(), "run", "two")
        marks = broker.board.marks
        assert marks is not None
        for one in (mark, other):
            await marks.put(one.key, one.name, one.value, 600.0)
        delivery = await _taken(broker, queue)
        record = _result(results, _id(), 1)
        await settlements.land(Landing(delivery.receipt, [record], held=True, mark=mark))
        assert await marks.put(mark.key, mark.name, "later", 600.0) == "one"
        # With others, and with one whose mark has another value by now.
        wrong = msgspec.structs.replace(other, value="another")
        more = [await _taken(broker, queue) for _ in range(2)]
        landings = [Landing(more[0].receipt, [_result(results, _id(), 2)])]
        landings += [Landing(delivery.receipt, [record], mark=mark), Landing(more[1].receipt, mark=wrong)]
        await asyncio.gather(*(settlements.land(landing) for landing in landings))
        assert await marks.put(mark.key, mark.name, "later", 600.0) == "later"
        assert await marks.put(other.key, other.name, "later", 600.0) == "two"
        with pytest.raises(DeliveryLost):
            await settlements.land(Landing(delivery.receipt, [record], mark=other))
        assert await marks.put(other.key, other.name, "later", 600.0) == "two"

    async def test_a_mark_of_the_results_board_goes_with_a_result(self, results: Backend) -> None:
        assert isinstance(results, UnmarkingBackend)
        assert results.board is not None
        assert results.board.marks is not None
        marks, mark, task_id = results.board.marks, Mark(_id(), "run", "one"), _id()
        await marks.put(mark.key, mark.name, mark.value, 600.0)
        wrong = msgspec.structs.replace(mark, value="another")
        await results.store_and_unmark(_result(results, task_id, 1), wrong)
        assert await marks.put(mark.key, mark.name, "later", 600.0) == "one"
        await results.store_and_unmark(_result(results, task_id, 2), mark)
        assert await marks.put(mark.key, mark.name, "later", 600.0) == "later"
        [record] = await results.load([task_id])
        assert record is not None
        assert record.result == 2

    async def test_a_message_that_is_not_due_is_parked(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        due = time.time() + 3600
        await publish_numbers(broker, queue, [0])
        async with broker.subscribe([queue]) as subscription:
            [delivery] = await take_some(subscription, 1)
            later = Envelope(body=b"7", content_type="application/json"), Route(queue, queue=queue, due=due)
            await settlements.land(
                Landing(delivery.receipt, [_result(results, task_id, 1)], messages=[later])
            )
            parked = [entry for entry in await broker.schedule.list() if entry.queue == queue]
            assert [entry.due for entry in parked] == [pytest.approx(due, abs=0.01)]
            assert [number_in(entry.envelope) for entry in parked] == [7]
            assert await broker.depth(queue) == 0

    async def test_many_at_once(self, broker: Broker, results: Backend, settlements: Settlements) -> None:
        queue, task_id = fresh_queue(), _id()
        await publish_numbers(broker, queue, range(300))
        async with broker.subscribe([queue]) as subscription:
            deliveries = await take_all(subscription, 300)
            await asyncio.gather(
                *(
                    settlements.land(
                        Landing(delivery.receipt, [_result(results, f"{task_id}.{number}", number)])
                    )
                    for number, delivery in enumerate(deliveries)
                )
            )
            for delivery in deliveries:
                await _assert_void(delivery)
        records = await results.load([f"{task_id}.{number}" for number in range(300)])
        assert [record.result if record else None for record in records] == list(range(300))

    async def test_what_is_refused_for_one_harms_no_other(
        self, broker: Broker, results: Backend, settlements: Settlements
    ) -> None:
        queue, task_id = fresh_queue(), _id()
        await publish_numbers(broker, queue, range(3))
        async with broker.subscribe([queue]) as subscription:
            deliveries = await take_all(subscription, 3)
            nowhere = Envelope(body=b"1"), Route(_NO_NAME, queue=_NO_NAME)
            landings = [
                Landing(
                    delivery.receipt,
                    [_result(results, f"{task_id}.{number}", number)],
                    messages=[nowhere] if number == 1 else (),
                )
                for number, delivery in enumerate(deliveries)
            ]
            answers = await asyncio.gather(
                *(settlements.land(landing) for landing in landings), return_exceptions=True
            )
            assert [isinstance(answer, EncodeError) for answer in answers] == [False, True, False]
            await deliveries[1].receipt.ack()
            for delivery in (deliveries[0], deliveries[2]):
                await _assert_void(delivery)


async def _taken(broker: Broker, queue: str) -> Delivery:
    """Return a delivery whose subscription is over."""
    await publish_numbers(broker, queue, [0])
    async with broker.subscribe([queue]) as subscription:
        [delivery] = await take_some(subscription, 1)
    return delivery


async def _waiting(broker: Broker, queue: str) -> list[int]:
    return [number_in(envelope) for envelope in await broker.peek(queue)]


async def _assert_void(delivery: Delivery) -> None:
    with pytest.raises(DeliveryLost):
        await delivery.receipt.requeue()


def _chords(results: Backend) -> ChordStore:
    assert results.chords is not None
    return results.chords


def _result(results: Backend, task_id: str, value: object) -> EncodedResult:
    return results.encode(ResultRecord(task_id=task_id, status=SUCCESS, result=value))


def _part(results: Backend, chord_id: str, index: int) -> EncodedPart:
    return _chords(results).encode(
        Part(chord_id, f"{chord_id}.{index}", index, SUCCESS, index, {"task": "body"}, chord_id)
    )


def _message(queue: str, number: int) -> tuple[Envelope, Route]:
    return numbered(number), Route(queue, queue=queue)


def _id() -> str:
    return uuid.uuid4().hex
