"""The suite that every broker passes: a test for each sentence of its contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import pytest

from celeriac.contracts.broker import Broker, Delivery, Receipt, Surveyed
from celeriac.errors import DeliveryLost, EncodeError
from celeriac.testing.steps import (
    bury_numbers,
    drain,
    envelope_of,
    fresh_queue,
    number_in,
    number_of,
    numbered,
    publish_numbers,
    soon,
    take_all,
    take_everything,
    take_some,
)
from celeriac.wire.envelope import Envelope, Route, Unreadable

Plant: TypeAlias = Callable[[str, bytes], Awaitable[None]]
"""Puts bytes into a queue as they are, as a careless peer would."""

_VERBS: Sequence[Callable[[Receipt], Awaitable[None]]] = (
    lambda receipt: receipt.ack(),
    lambda receipt: receipt.requeue(),
    lambda receipt: receipt.park(time.time() + 60),
    lambda receipt: receipt.bury("no use"),
)


class BrokerContract:
    """Subclass it and give it three fixtures.

    ``broker``: the broker under test, on a place that holds nothing. ``second``: another connection to the same
    place, as another process would have. ``plant``: a ``Plant`` for that place. The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    # --- publishing and taking -----------------------------------------------------------------------------

    async def test_a_message_arrives_as_it_was_sent(self, broker: Broker, queue: str) -> None:
        sent = Envelope(
            body=b"\x00\xff body",
            content_type="application/json",
            content_encoding="utf-8",
            headers={
                "task": "tasks.grüße",
                "retries": 0,
                "eta": None,
                "timelimit": [None, 2.5],
                "deep": {"a": [1]},
            },
            correlation_id="id-1",
            reply_to="replies",
            priority=3,
            expiration="60000",
            app_id="shop",
        )
        await broker.publish(sent, Route(queue, queue=queue))
        async with broker.subscribe([queue]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
        got = envelope_of(delivery)
        texts = ("content_type", "content_encoding", "correlation_id", "reply_to", "app_id")
        for field in ("body", "headers", *texts):
            assert getattr(got, field) == getattr(sent, field)
        assert (got.priority, got.expiration, got.delivery_mode) == (3, "60000", 2)
        assert (got.exchange, got.routing_key) == ("", queue)
        assert got.delivery_tag
        assert not got.redelivered
        assert (delivery.queue, delivery.redelivered) == (queue, False)

    async def test_published_means_that_every_connection_sees_it(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await broker.publish(numbered(1), Route(queue, queue=queue))
        assert await second.depth(queue) == 1

    async def test_messages_come_in_the_order_they_were_published(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, range(3))
        await broker.publish_many([(numbered(number), Route(queue, queue=queue)) for number in range(3, 40)])
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 40, limit=7) == list(range(40))

    async def test_one_publisher_after_the_other_keeps_its_order_among_many(
        self, broker: Broker, queue: str
    ) -> None:
        async def publish(publisher: int) -> None:
            for number in range(5):
                await broker.publish(numbered(publisher * 5 + number), Route(queue, queue=queue))

        await asyncio.gather(*[publish(publisher) for publisher in range(20)])
        async with broker.subscribe([queue]) as subscription:
            got = await drain(subscription, 100)
        for publisher in range(20):
            assert [n for n in got if n // 5 == publisher] == [publisher * 5 + number for number in range(5)]

    async def test_200_publishers_at_once(self, broker: Broker, queue: str) -> None:
        await asyncio.gather(*[broker.publish(numbered(n), Route(queue, queue=queue)) for n in range(200)])
        assert await broker.depth(queue) == 200
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 200) == list(range(200))

    async def test_a_name_that_is_no_text_is_refused_before_anything_is_sent(
        self, broker: Broker, queue: str
    ) -> None:
        fine, odd = Route(queue, queue=queue), Route("lone \ud800", queue="lone \ud800")
        told = await asyncio.gather(
            *(broker.publish(numbered(1), route) for route in (fine, odd, fine)), return_exceptions=True
        )
        assert [type(one) for one in told] == [type(None), EncodeError, type(None)]
        with pytest.raises(EncodeError):
            await broker.publish_many([(numbered(2), fine), (numbered(2), odd)])
        assert await broker.depth(queue) == 2

    async def test_publishing_nothing(self, broker: Broker) -> None:
        await broker.publish_many([])

    async def test_lower_priority_numbers_are_taken_first(self, broker: Broker, queue: str) -> None:
        for number, priority in enumerate([9, 3, 0, 6, 3, 0]):
            await broker.publish(numbered(number, priority), Route(queue, queue=queue))
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, 6) == [2, 5, 1, 4, 3, 0]

    async def test_a_take_has_at_most_its_limit(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, range(5))
        async with broker.subscribe([queue]) as subscription:
            assert len(await take_some(subscription, 1)) == 1
            assert len(await take_some(subscription, 3)) == 3
            assert len(await take_some(subscription, 100)) == 1

    async def test_queues_are_served_fairly(self, broker: Broker, queue: str) -> None:
        queues = [f"{queue}.{name}" for name in "abc"]
        for name in queues:
            await publish_numbers(broker, name, range(30))
        async with broker.subscribe(queues) as subscription:
            taken: list[Delivery] = []
            for _ in range(6):
                taken += await take_some(subscription, 3)
            assert {delivery.queue for delivery in taken} == set(queues)

    async def test_priority_counts_over_all_queues(self, broker: Broker, queue: str) -> None:
        low, high = f"{queue}.low", f"{queue}.high"
        for name, priority in [(low, 6), (high, 9), (low, 3), (high, 0)]:
            await broker.publish(numbered(priority, priority), Route(name, queue=name))
        async with broker.subscribe([low, high]) as subscription:
            assert await drain(subscription, 4, limit=1) == [0, 3, 6, 9]

    async def test_a_large_body(self, broker: Broker, queue: str) -> None:
        body = bytes(range(256)) * 4096
        await broker.publish(Envelope(body=body), Route(queue, queue=queue))
        async with broker.subscribe([queue]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
            assert envelope_of(delivery).body == body
            await delivery.receipt.requeue()
            assert envelope_of((await take_some(subscription, 1))[0]).body == body

    async def test_names_and_headers_in_any_script(self, broker: Broker, queue: str) -> None:
        name = f"очередь 队列 'quoted\" {queue}"
        await broker.publish(Envelope(body=b"", headers={"ключ": "値"}), Route(name, queue=name))
        assert name in await broker.queues()
        async with broker.subscribe([name]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
        assert delivery.queue == name
        assert envelope_of(delivery).headers == {"ключ": "値"}

    async def test_bytes_that_are_no_message_are_delivered_and_settled_as_any(
        self, broker: Broker, plant: Plant, queue: str
    ) -> None:
        garbage = [b"", b"{", b"[1, 2]", b"\xff\xfe\x00not text", b'{"no": "body"}']
        for raw in garbage:
            await plant(queue, raw)
        await publish_numbers(broker, queue, [1])
        seen = dict.fromkeys(garbage, 0)
        async with broker.subscribe([queue]) as subscription:
            taken: list[Delivery] = []
            while len(taken) < len(garbage) + 1:
                taken += await take_some(subscription, 10)
            for delivery in taken:
                if isinstance(delivery.envelope, Unreadable):
                    assert delivery.envelope.reason
                    seen[delivery.envelope.raw] += 1
                    await delivery.receipt.bury("unreadable")
                else:
                    assert number_of(delivery) == 1
                    await delivery.receipt.ack()
        assert set(seen.values()) == {1}
        dead = [entry.envelope for entry in await broker.dead.list()]
        assert {envelope.raw for envelope in dead if isinstance(envelope, Unreadable)} == set(seen)

    # --- waiting -------------------------------------------------------------------------------------------

    async def test_a_message_from_elsewhere_ends_the_wait(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        async with broker.subscribe([queue]) as subscription:
            for number in range(5):
                waiting = asyncio.create_task(subscription.take(10))
                await publish_numbers(second, queue, [number])
                assert [number_of(delivery) for delivery in await soon(waiting)] == [number]

    async def test_stop_ends_the_wait(self, broker: Broker, queue: str) -> None:
        async with broker.subscribe([queue]) as subscription:
            waiting = asyncio.create_task(subscription.take(10))
            await broker.depth(queue)  # a round trip: the wait has begun
            await subscription.stop()
            assert await soon(waiting) == []

    async def test_nothing_is_taken_after_stop(self, broker: Broker, queue: str) -> None:
        async with broker.subscribe([queue]) as subscription:
            await subscription.stop()
            await publish_numbers(broker, queue, [1])
            assert await soon(subscription.take(1)) == []
            assert await broker.depth(queue) == 1

    async def test_stop_racing_with_publish_loses_nothing(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        for attempt in range(20):
            name = f"{queue}.{attempt}"
            async with broker.subscribe([name]) as subscription:
                waiting = asyncio.create_task(subscription.take(10))
                for _ in range(attempt):
                    await asyncio.sleep(0)  # another moment of the take each time
                await asyncio.gather(publish_numbers(second, name, range(3)), subscription.stop())
                left = await second.depth(name)  # before the take is heard of: it is over
                assert len(await soon(waiting)) + left == 3

    async def test_leaving_the_block_stops_and_keeps_receipts_valid(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
        assert await soon(subscription.take(1)) == []
        await delivery.receipt.ack()
        assert await broker.depth(queue) == 0

    async def test_a_queue_is_added_while_waiting_and_dropped(self, broker: Broker, queue: str) -> None:
        other = f"{queue}.other"
        async with broker.subscribe([queue]) as subscription:
            await publish_numbers(broker, other, [1])
            waiting = asyncio.create_task(subscription.take(1))
            await broker.depth(other)
            await subscription.add_queue(other)
            assert [number_of(delivery) for delivery in await soon(waiting)] == [1]
            await subscription.drop_queue(other)
            await publish_numbers(broker, other, [2])
            await publish_numbers(broker, queue, [3])
            assert [number_of(delivery) for delivery in await take_some(subscription, 10)] == [3]
            assert await broker.depth(other) == 1

    async def test_two_takers_share_messages_each_once(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, range(500))
        async with broker.subscribe([queue]) as one, second.subscribe([queue]) as other:
            got = await take_everything([one, other], 500)
        assert sorted(got) == list(range(500))
        assert await broker.depth(queue) == 0

    # --- settling ------------------------------------------------------------------------------------------

    async def test_an_acknowledged_message_is_gone(self, broker: Broker, second: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, range(300))
        async with broker.subscribe([queue]) as subscription:
            taken = await take_all(subscription, 300)
            await asyncio.gather(*[delivery.receipt.ack() for delivery in taken])
        assert (await second.depth(queue), await second.peek(queue), await second.dead.count()) == (0, [], 0)

    async def test_a_taken_message_is_nobody_elses(self, broker: Broker, second: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1, 2])
        async with broker.subscribe([queue]) as subscription, second.subscribe([queue]) as other:
            mine = await take_some(subscription, 1)
            theirs = await take_some(other, 10)
            assert [number_of(delivery) for delivery in mine + theirs] == [1, 2]

    async def test_a_requeued_message_is_next_and_marked(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, range(5))
        async with broker.subscribe([queue]) as subscription, second.subscribe([queue]) as other:
            first = (await take_some(subscription, 1))[0]
            await first.receipt.requeue()
            again = (await take_some(other, 1))[0]
            assert (number_of(again), again.redelivered, envelope_of(again).redelivered) == (0, True, True)
            assert await drain(other, 4) == [1, 2, 3, 4]

    async def test_a_requeued_message_keeps_its_priority(self, broker: Broker, queue: str) -> None:
        await broker.publish(numbered(1, priority=6), Route(queue, queue=queue))
        async with broker.subscribe([queue]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
            await broker.publish(numbered(2, priority=3), Route(queue, queue=queue))
            await delivery.receipt.requeue()
            assert await drain(subscription, 2) == [2, 1]

    async def test_giving_back_on_purpose_does_not_count(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            for settle in (_VERBS[1], lambda receipt: receipt.park(time.time()), _VERBS[1]):
                (delivery,) = await take_some(subscription, 1)
                assert delivery.deliveries == 1
                await settle(delivery.receipt)
            (delivery,) = await take_some(subscription, 1)
            assert (delivery.redelivered, delivery.deliveries) == (True, 1)

    async def test_requeue_ends_the_wait_of_another(self, broker: Broker, second: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription, second.subscribe([queue]) as other:
            delivery = (await take_some(subscription, 1))[0]
            waiting = asyncio.create_task(other.take(1))
            await second.depth(queue)
            await delivery.receipt.requeue()
            assert [number_of(delivery) for delivery in await soon(waiting)] == [1]

    async def test_requeue_ends_the_wait_of_another_subscription(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription, broker.subscribe([queue]) as other:
            delivery = (await take_some(subscription, 1))[0]
            waiting = asyncio.create_task(other.take(1))
            await broker.depth(queue)
            await delivery.receipt.requeue()
            assert [number_of(delivery) for delivery in await soon(waiting)] == [1]

    async def test_a_parked_message_comes_back_when_due_as_the_next(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1, 2])
        async with broker.subscribe([queue]) as subscription:
            delivery = (await take_some(subscription, 1))[0]
            due = time.time() + 1
            await delivery.receipt.park(due)
            assert await broker.depth(queue) == 1
            assert await drain(subscription, 1) == [2]
            assert [number_of(parked) for parked in await take_some(subscription, 1)] == [1]
            assert due <= time.time() < due + 2

    async def test_parked_until_a_time_that_is_past(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1, 2])
        async with broker.subscribe([queue]) as subscription:
            await (await take_some(subscription, 1))[0].receipt.park(time.time() - 60)
            assert await drain(subscription, 2) == [1, 2]

    async def test_a_parked_message_comes_back_to_another_when_its_first_taker_left(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            await (await take_some(subscription, 1))[0].receipt.park(time.time() + 0.2)
        async with second.subscribe([queue]) as other:
            assert await drain(other, 1) == [1]

    async def test_a_buried_message_is_in_the_dead_letter_list(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        before = time.time()
        await bury_numbers(broker, queue, range(3))
        assert await second.depth(queue) == 0
        assert await second.dead.count() == 3
        entries = await second.dead.list()
        assert [number_in(entry.envelope) for entry in entries] == [0, 1, 2]
        assert {(entry.queue, entry.reason) for entry in entries} == {(queue, "beyond help")}
        assert all(before - 1 <= entry.died_at <= time.time() + 1 for entry in entries)
        assert [entry.id for entry in await broker.dead.list(limit=1, offset=1)] == [entries[1].id]
        assert await broker.dead.list(offset=3) == []

    async def test_a_dead_letter_is_retried_on_its_queue(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await bury_numbers(broker, queue, range(3))
        first, _, last = await broker.dead.list()
        async with second.subscribe([queue]) as subscription:
            waiting = asyncio.create_task(subscription.take(1))
            await second.depth(queue)
            assert await broker.dead.retry([last.id]) == 1
            (again,) = await soon(waiting)
            assert (number_of(again), again.deliveries) == (2, 1)
            assert await broker.dead.retry([last.id, "no-such-entry"]) == 0
            assert await broker.dead.count() == 2
            assert await broker.dead.delete([first.id, last.id, "no-such-entry"]) == 1
            assert [number_in(entry.envelope) for entry in await broker.dead.list()] == [1]

    @pytest.mark.parametrize("verb", _VERBS, ids=["ack", "requeue", "park", "bury"])
    async def test_a_receipt_is_good_for_once(
        self, broker: Broker, queue: str, verb: Callable[[Receipt], Awaitable[None]]
    ) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            receipt = (await take_some(subscription, 1))[0].receipt
            await verb(receipt)
            for again in _VERBS:
                with pytest.raises(DeliveryLost):
                    await again(receipt)

    async def test_an_old_receipt_does_not_settle_the_next_delivery(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            old = (await take_some(subscription, 1))[0]
            await old.receipt.requeue()
            new = (await take_some(subscription, 1))[0]
            with pytest.raises(DeliveryLost):
                await old.receipt.ack()
            await new.receipt.requeue()
        assert await broker.depth(queue) == 1

    async def test_different_endings_at_once(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, range(40))
        async with broker.subscribe([queue]) as subscription:
            taken = await take_all(subscription, 40)
            await asyncio.gather(
                *[_VERBS[index % 4](delivery.receipt) for index, delivery in enumerate(taken)]
            )
        assert await broker.depth(queue) == 10
        assert await broker.dead.count() == 10

    # --- looking -------------------------------------------------------------------------------------------

    async def test_depth_counts_what_waits(self, broker: Broker, queue: str) -> None:
        assert await broker.depth(queue) == 0
        await publish_numbers(broker, queue, range(4))
        async with broker.subscribe([queue]) as subscription:
            taken = await take_some(subscription, 2)
            assert len(taken) == 2
            await taken[0].receipt.park(time.time() + 60)
            assert await broker.depth(queue) == 2

    async def test_peek_shows_the_next_and_leaves_them(self, broker: Broker, queue: str) -> None:
        for number, priority in enumerate([3, 0, 3]):
            await broker.publish(numbered(number, priority), Route(queue, queue=queue))
        assert [number_in(envelope) for envelope in await broker.peek(queue)] == [1, 0, 2]
        assert [number_in(envelope) for envelope in await broker.peek(queue, limit=2)] == [1, 0]
        assert await broker.peek(f"{queue}.empty") == []
        assert await broker.depth(queue) == 3

    async def test_a_survey_counts_everything(self, broker: Broker, queue: str) -> None:
        if not isinstance(broker, Surveyed):
            pytest.skip("this broker counts one queue at a time")
        for number, priority in enumerate([3, 0, 3, 3]):
            await broker.publish(numbered(number, priority), Route(queue, queue=queue))
        async with broker.subscribe([queue]) as subscription:
            taken = await take_some(subscription, 2)
            await taken[0].receipt.park(time.time() + 60)
            found = await broker.survey([queue, f"{queue}.empty"])
            waiting, empty = found.queues
            assert (waiting.queue, waiting.waiting, empty.waiting, len(empty.heads)) == (queue, 2, 0, 0)
            if broker.shows_heads:
                assert number_in(waiting.heads[0]) == 2
            assert found.parked >= 1
            assert (found.taken or 0) >= broker.tells_taken
            await taken[1].receipt.bury("no reason")
            assert (await broker.survey([])).dead >= 1

    async def test_purge_deletes_what_waits_and_nothing_else(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, range(4))
        await publish_numbers(broker, f"{queue}.other", [9])
        async with broker.subscribe([queue]) as subscription:
            taken = await take_some(subscription, 1)
            assert await second.purge(queue) == 3
            assert await second.purge(queue) == 0
            await taken[0].receipt.requeue()
            assert await broker.depth(queue) == 1
        assert await broker.depth(f"{queue}.other") == 1

    async def test_queues_are_known_once_published_to_or_subscribed(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, f"{queue}.b", [1])
        async with broker.subscribe([f"{queue}.a"]):
            known = [name for name in await second.queues() if name.startswith(queue)]
        assert known == [f"{queue}.a", f"{queue}.b"]

    async def test_ping_says_in_one_line_what_answered(self, broker: Broker) -> None:
        assert (await broker.ping()).strip()
        assert "\n" not in await broker.ping()

    async def test_examining_finds_nothing_and_leaves_nothing(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        assert list(await broker.examine([queue])) == []
        assert await broker.depth(queue) == 1

    async def test_close_is_idempotent(self, broker: Broker, queue: str) -> None:
        await publish_numbers(broker, queue, [1])
        await broker.close()
        await broker.close()

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()
