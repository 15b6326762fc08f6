"""Many messages at once are one transaction; what is taken and waited for costs no needless statement."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from celeriac.errors import EncodeError
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.bulk import SLICE
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.queue_rows import NewMessage
from celeriac.testing.steps import drain, number_of, numbered
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import SUCCESS, ResultRecord

MANY = 2 * SLICE + 7


@pytest.fixture
async def open_broker(connect: Callable[..., Connections]) -> AsyncIterator[Callable[[], PostgresBroker]]:
    """Make brokers; they are closed at the end."""
    async with AsyncExitStack() as stack:

        def open_broker() -> PostgresBroker:
            broker = PostgresBroker(connect())
            stack.push_async_callback(broker.close)
            return broker

        yield open_broker


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What takes asked the database for."""
    asked: list[object] = []
    take = Queues.take

    async def counted(queues: Queues, *values: object) -> object:
        asked.append(values)
        return await take(queues, *values)

    monkeypatch.setattr(Queues, "take", counted)
    return asked


async def until(holds: Callable[[], object]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


def many(queue: str) -> list[tuple[Envelope, Route]]:
    return [(numbered(number), Route(queue, queue=queue)) for number in range(MANY)]


class TestBulk:
    async def test_all_are_there_in_order(self, open_broker, queue):
        broker = open_broker()
        await broker.publish_many(many(queue))
        assert await broker.queues() == [queue]
        async with broker.subscribe([queue]) as subscription:
            assert await drain(subscription, MANY) == list(range(MANY))

    async def test_none_is_there_if_one_cannot_be_kept(self, open_broker, queue):
        broker = open_broker()
        odd = (numbered(0), Route("\0", queue="\0"))
        with pytest.raises(EncodeError):
            await broker.publish_many([*many(queue), odd])
        assert await broker.depth(queue) == 0
        await broker.publish_many(many(queue))
        assert await broker.depth(queue) == MANY

    async def test_none_is_there_if_it_is_cancelled(self, open_broker, queue, monkeypatch):
        broker = open_broker()
        await broker.publish(*many(queue)[0])
        slices: list[object] = []

        def cancelled_at_the_second(messages: Sequence[tuple[Envelope, Route]]) -> list[NewMessage]:
            slices.append(messages)
            if len(slices) == 2:  # the first is under way
                raise asyncio.CancelledError
            return new_messages(messages)

        monkeypatch.setattr("celeriac.servers.postgres.bulk.new_messages", cancelled_at_the_second)
        with pytest.raises(asyncio.CancelledError):
            await broker.publish_many(many(queue))
        monkeypatch.undo()
        assert await broker.depth(queue) == 1

    async def test_a_sleeper_is_woken(self, open_broker, postgres_server, postgres_schema, queue):
        sleeper, sender = open_broker(), open_broker()
        async with sleeper.subscribe([queue]) as subscription, asyncio.timeout(60):
            waiting = asyncio.create_task(subscription.take(1))
            with postgres_server.client(postgres_schema) as connection:
                await until(lambda: connection.execute("SELECT * FROM celeriac_sleeper").fetchall())
            await sender.publish_many(many(queue))
            assert number_of((await waiting)[0]) == 0


class TestTakes:
    async def test_who_left_nothing_does_not_ask_again_before_it_is_told(
        self, open_broker, postgres_server, postgres_schema, queue, asked, monkeypatch
    ):
        monkeypatch.setattr("celeriac.servers.postgres.subscription._SHORT", 3600.0)  # on a busy machine, too
        broker, sender = open_broker(), open_broker()
        async with broker.subscribe([queue]) as subscription, asyncio.timeout(60):
            waiting = asyncio.create_task(subscription.take(5))
            await until(lambda: len(asked) >= 1)
            await asyncio.sleep(1.0)  # all looks of one that just fell asleep are over
            for number in range(3):
                before = len(asked)
                await sender.publish(numbered(number), Route(queue, queue=queue))
                (delivery,) = await waiting
                assert number_of(delivery) == number
                waiting = asyncio.create_task(subscription.take(5))
                await delivery.receipt.ack()
                assert len(asked) == before + 1
            await sender.publish(numbered(3), Route(queue, queue=queue))
            (delivery,) = await waiting
            waiting = asyncio.create_task(subscription.take(5))
            with postgres_server.client(postgres_schema) as connection:  # a look finds what nobody told of
                connection.execute(
                    "INSERT INTO celeriac_message (queue, priority, frame)"
                    " SELECT queue, priority, frame FROM celeriac_message"
                )
            (delivery,) = await waiting
            assert number_of(delivery) == 3


class TestWaits:
    async def test_notes_of_ended_waits_are_deleted_together(
        self, open_results, postgres_server, postgres_schema
    ):
        results: PostgresBackend = open_results()
        for task_id in ("one", "two"):
            await results.store(results.encode(ResultRecord(task_id, SUCCESS, 1)))
            async with results.follow([task_id]) as records:
                assert [record.result async for record in records] == [1]
        with postgres_server.client(postgres_schema) as connection:
            noted = "SELECT count(*) FROM celeriac_waiting"
            await until(lambda: connection.execute(noted).fetchone() == (0,))

    async def test_who_waits_anew_is_told_although_its_last_wait_just_ended(self, open_results, monkeypatch):
        monkeypatch.setattr("celeriac.servers.postgres.results._POLL", 3600.0)
        waiting, storing = open_results(), open_results()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.04), waiting.follow(["one"]) as records:
                    await anext(records)
        async with waiting.follow(["one"]) as records, asyncio.timeout(60):
            await asyncio.sleep(0.3)  # the notes of ended waits are deleted
            await storing.store(storing.encode(ResultRecord("one", SUCCESS, 1)))
            assert [record.result async for record in records] == [1]

    async def test_closing_deletes_them_at_once(self, open_results, postgres_server, postgres_schema):
        results: PostgresBackend = open_results()
        await results.store(results.encode(ResultRecord("one", SUCCESS, 1)))
        async with results.follow(["one"]) as records:
            assert [record.result async for record in records] == [1]
        await results.close()
        with postgres_server.client(postgres_schema) as connection:
            assert connection.execute("SELECT count(*) FROM celeriac_waiting").fetchone() == (0,)
