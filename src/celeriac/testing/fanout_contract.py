"""The suite of fanout that every broker passes: a test for each sentence of the contract."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from celeriac.contracts.broker import Broker
from celeriac.contracts.fanout import Binding, Exchange, Fanout, ReplyTo
from celeriac.testing.steps import number_in, numbered, soon
from celeriac.wire.envelope import Envelope, Unreadable

Heard = AsyncIterator[Envelope | Unreadable]


class FanoutContract:
    """Subclass it and give it two fixtures of ``BrokerContract``: ``broker``, and ``second`` for the same place."""

    pytestmark = pytest.mark.asyncio

    async def test_everybody_who_listens_gets_a_copy(
        self, broker: Broker, second: Broker, exchange: Exchange
    ) -> None:
        one, two = _fanout(broker), _fanout(second)
        async with one.listen([_to(exchange)]) as here, two.listen([_to(exchange)]) as there:
            for number in range(3):
                assert await two.publish(exchange, numbered(number)) in (2, None)
            assert await _numbers(here, 3) == await _numbers(there, 3) == [0, 1, 2]

    async def test_a_message_arrives_as_it_was_sent(self, broker: Broker, exchange: Exchange) -> None:
        fanout = _fanout(broker)
        sent = Envelope(
            body='{"method": "grüße"}'.encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers={"clock": 7, "ticket": None, "nested": {"a": [1, "ü"]}},
            delivery_mode=1,
        )
        async with fanout.listen([_to(exchange)]) as heard:
            await fanout.publish(exchange, sent)
            got = await _next(heard)
        for name in ("body", "content_type", "content_encoding", "headers", "delivery_mode"):
            assert getattr(got, name) == getattr(sent, name)
        assert (got.exchange, got.routing_key) == (exchange.name, "")

    async def test_a_large_message_arrives_whole(self, broker: Broker, exchange: Exchange) -> None:
        fanout, body = _fanout(broker), b"x" * 300_000
        async with fanout.listen([_to(exchange)]) as heard:
            await fanout.publish(exchange, Envelope(body=body, content_type="application/data"))
            assert (await _next(heard)).body == body

    async def test_a_thousand_come_in_order(self, broker: Broker, second: Broker, exchange: Exchange) -> None:
        async with _fanout(broker).listen([_to(exchange)]) as heard:
            for number in range(1000):
                await _fanout(second).publish(exchange, numbered(number))
            assert await _numbers(heard, 1000) == list(range(1000))

    async def test_a_publisher_that_is_cancelled_ends(self, broker: Broker, exchange: Exchange) -> None:
        fanout = _fanout(broker)

        async def publish_for_ever() -> None:
            while True:
                await fanout.publish(exchange, numbered(1))
                await asyncio.sleep(0)  # publishing in memory waits for nothing

        await fanout.publish(exchange, numbered(1))
        for turns in range(40):  # wherever in a publish the cancellation arrives
            publisher = asyncio.create_task(publish_for_ever())
            for _ in range(turns):
                await asyncio.sleep(0)
            publisher.cancel()
            await asyncio.wait([publisher], timeout=5)
            assert publisher.cancelled()

    async def test_nothing_is_kept_for_who_comes_later(
        self, broker: Broker, second: Broker, exchange: Exchange
    ) -> None:
        fanout = _fanout(broker)
        assert await fanout.publish(exchange, numbered(1)) == 0
        async with _fanout(second).listen([_to(exchange)]):
            assert await fanout.publish(exchange, numbered(2)) != 0
            async with fanout.listen([_to(exchange)]) as heard:
                await fanout.publish(exchange, numbered(3))
                assert await _numbers(heard, 1) == [3]

    async def test_who_left_hears_no_more(self, broker: Broker, second: Broker, exchange: Exchange) -> None:
        fanout = _fanout(broker)
        async with fanout.listen([_to(exchange)]) as heard:
            async with _fanout(second).listen([_to(exchange)]) as other:
                await fanout.publish(exchange, numbered(1))
                assert await _numbers(other, 1) == [1]
            assert await fanout.publish(exchange, numbered(2)) in (1, None)
            assert await _numbers(heard, 2) == [1, 2]
        assert await fanout.publish(exchange, numbered(3)) == 0

    async def test_keys_choose_what_is_heard(self, broker: Broker, exchange: Exchange) -> None:
        fanout, events = _fanout(broker), Exchange(f"{exchange.name}.ev", by_key=True)
        keys = ["worker.heartbeat", "task.multi", "worker.elect", "[x].1", "task.multi"]
        bound = {
            "#": [0, 1, 2, 3, 4], "worker.#": [0, 2], "task.multi": [1, 4], "worker.elect": [2], "[x].#": [3],
        }  # fmt: skip
        async with asyncio.TaskGroup() as group:
            reading = {}
            ready = asyncio.Barrier(len(bound) + 1)
            for key, expected in bound.items():
                reading[key] = group.create_task(_hear(fanout, events, key, len(expected), ready))
            await soon(ready.wait())
            for number, key in enumerate(keys):
                await fanout.publish(events, numbered(number), key)
        assert {key: task.result() for key, task in reading.items()} == bound

    async def test_one_subscription_hears_several_exchanges(self, broker: Broker, exchange: Exchange) -> None:
        fanout, events = _fanout(broker), Exchange(f"{exchange.name}.ev", by_key=True)
        bindings = [_to(exchange), _to(events, "worker.elect")]
        async with fanout.listen(bindings) as heard:
            assert await fanout.publish(Exchange(f"{exchange.name}.other"), numbered(1)) == 0
            assert await fanout.publish(events, numbered(2), "worker.heartbeat") == 0
            await fanout.publish(events, numbered(3), "worker.elect")
            await fanout.publish(exchange, numbered(4))
            assert sorted(await _numbers(heard, 2)) == [3, 4]

    async def test_the_answers_of_all_who_heard_it_come_back(
        self, broker: Broker, second: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        one, two = _fanout(broker), _fanout(second)
        async with (
            one.listen([_to(exchange)]) as here,
            two.listen([_to(exchange)]) as there,
            one.ask(exchange, numbered(1), reply_to, expect=2) as answers,
        ):
            for fanout, heard, number in ((one, here, 10), (two, there, 20)):
                assert number_in(await _next(heard)) == 1
                assert await fanout.answer(reply_to, numbered(number))
            got = [number_in(answer) async for answer in answers]
        assert sorted(got) == [10, 20]

    async def test_asking_ends_when_all_answered_where_they_are_counted(
        self, broker: Broker, second: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        one, two = _fanout(broker), _fanout(second)
        async with one.listen([_to(exchange)]), two.listen([_to(exchange)]):
            counted = await one.publish(exchange, numbered(0))
            async with one.ask(exchange, numbered(1), reply_to) as answers:
                for number in (1, 2):
                    await two.answer(reply_to, numbered(number))
                if counted is not None:
                    assert sorted([number_in(answer) async for answer in answers]) == [1, 2]

    async def test_asking_ends_at_once_where_nobody_listens(
        self, broker: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        async with asyncio.timeout(10), _fanout(broker).ask(exchange, numbered(1), reply_to) as answers:
            assert [answer async for answer in answers] == []

    async def test_asking_ends_after_as_many_answers_as_were_expected(
        self, broker: Broker, second: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        one, two = _fanout(broker), _fanout(second)
        async with (
            one.listen([_to(exchange)]),
            two.listen([_to(exchange)]),
            one.ask(exchange, numbered(1), reply_to, expect=1) as answers,
        ):
            await two.answer(reply_to, numbered(5))
            assert [number_in(answer) async for answer in answers] == [5]

    async def test_an_answer_to_who_is_gone_goes_nowhere(
        self, broker: Broker, second: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        fanout = _fanout(broker)
        assert not await fanout.answer(reply_to, numbered(1))
        async with _fanout(second).ask(exchange, numbered(1), reply_to):
            pass
        assert not await fanout.answer(reply_to, numbered(2))
        async with (
            _fanout(second).listen([_to(exchange)]),
            fanout.ask(exchange, numbered(1), reply_to, expect=1) as answers,
        ):
            await fanout.answer(reply_to, numbered(3))
            assert [number_in(answer) async for answer in answers] == [3]

    async def test_two_who_ask_get_their_own_answers(
        self, broker: Broker, second: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        one, two = _fanout(broker), _fanout(second)
        other = ReplyTo(reply_to.exchange, uuid.uuid4().hex)
        async with (
            one.listen([_to(exchange)]),
            one.ask(exchange, numbered(1), reply_to, expect=1) as mine,
            two.ask(exchange, numbered(2), other, expect=1) as theirs,
        ):
            await one.answer(other, numbered(20))
            await one.answer(reply_to, numbered(10))
            assert [await _numbers(mine, 1), await _numbers(theirs, 1)] == [[10], [20]]

    async def test_waiting_can_be_given_up(
        self, broker: Broker, exchange: Exchange, reply_to: ReplyTo
    ) -> None:
        fanout = _fanout(broker)
        async with fanout.listen([_to(exchange)]) as heard:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), fanout.ask(exchange, numbered(1), reply_to) as answers:
                    await anext(answers)
            assert not await fanout.answer(reply_to, numbered(1))
            await fanout.publish(exchange, numbered(2))
            assert await _numbers(heard, 2) == [1, 2]

    @pytest.fixture
    def exchange(self) -> Exchange:
        """Return an exchange that no other test uses."""
        return Exchange(f"ex-{uuid.uuid4().hex[:12]}.pidbox")

    @pytest.fixture
    def reply_to(self, exchange: Exchange) -> ReplyTo:
        """Return where answers go that no other test waits for."""
        return ReplyTo(f"reply.{exchange.name}", uuid.uuid4().hex)


def _fanout(broker: Broker) -> Fanout:
    fanout = broker.fanout
    assert fanout is not None
    return fanout


def _to(exchange: Exchange, key: str = "") -> Binding:
    return Binding(exchange=exchange, key=key)


async def _hear(
    fanout: Fanout, exchange: Exchange, key: str, count: int, ready: asyncio.Barrier
) -> list[int]:
    async with fanout.listen([_to(exchange, key)]) as heard:
        await ready.wait()
        return await _numbers(heard, count)


async def _next(heard: Heard) -> Envelope:
    envelope = await soon(anext(heard))
    assert isinstance(envelope, Envelope)
    return envelope


async def _numbers(heard: Heard, count: int) -> list[int]:
    return [number_in(await _next(heard)) for _ in range(count)]
