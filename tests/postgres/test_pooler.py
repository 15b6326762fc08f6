"""Behind pgbouncer in transaction mode, where no session is ours: messages are polled for, and owners' rows expire."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from celeriac import Celeriac
from celeriac.errors import DeliveryLost
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.testing.contracts import (
    BackendContract,
    BrokerContract,
    FanoutContract,
    ScheduleContract,
    SettlementContract,
)
from celeriac.testing.steps import number_of, publish_numbers, take_all, take_some
from celeriac.wire.content import Codecs
from tests.contract.test_postgres import TestPostgresBroker as _Plain
from tests.servers import LoggedProcess, PgBouncer, PostgresServer

LEASE = 1.0


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_server.port) as pooler:
        yield pooler


@pytest.fixture
def connect(pooler: PgBouncer, postgres_schema: str) -> Callable[..., Connections]:
    """Make connections through the pooler to the test's own schema."""
    return lambda role="postgres": Connections(
        parse_postgres_url(pooler.url(postgres_schema, user=role)), "test", 20.0
    )


@pytest.fixture
async def open_broker(connect: Callable[..., Connections]) -> AsyncIterator[Callable[..., PostgresBroker]]:
    """Make brokers; they are closed at the end."""
    async with AsyncExitStack() as stack:

        def open_broker(**options: object) -> PostgresBroker:
            broker = PostgresBroker(connect(), **({"lease": LEASE} | options))
            stack.push_async_callback(broker.close)
            return broker

        yield open_broker


@pytest.fixture
async def broker(open_broker: Callable[..., PostgresBroker]) -> PostgresBroker:
    broker = open_broker(lease=30.0)
    await broker.ping()
    return broker


class TestBehindAPooler(BrokerContract, SettlementContract):
    """The contracts of a broker, the second of two with fewer rights; of further ones what is done otherwise here."""

    exchange = FanoutContract.exchange
    reply_to = FanoutContract.reply_to
    test_all_answers_come_back = FanoutContract.test_the_answers_of_all_who_heard_it_come_back
    test_keys_choose = FanoutContract.test_keys_choose_what_is_heard
    test_a_parked_message_is_seen = ScheduleContract.test_a_deleted_one_never_comes

    plant = _Plain.plant

    @pytest.fixture
    async def second(self, connect: Callable[..., Connections]) -> AsyncIterator[PostgresBroker]:
        second = PostgresBroker(connect("guest"))
        yield second
        await second.close()

    @pytest.fixture
    async def results(self, connect: Callable[..., Connections]) -> AsyncIterator[PostgresBackend]:
        results = PostgresBackend(connect(), Codecs())
        yield results
        await results.close()


class TestResultsBehindAPooler(BackendContract):
    """The contracts of a result store."""

    @pytest.fixture
    async def backend(self, connect: Callable[..., Connections]) -> AsyncIterator[PostgresBackend]:
        backend = PostgresBackend(connect(), Codecs())
        await backend.ping()
        yield backend
        await backend.close()

    @pytest.fixture
    async def second(self, connect: Callable[..., Connections]) -> AsyncIterator[PostgresBackend]:
        second = PostgresBackend(connect("guest"), Codecs())
        yield second
        await second.close()


class TestOwnersThatExpire:
    async def test_what_a_killed_process_held_comes_back_when_its_row_expires(
        self, open_broker, start, pooler, postgres_schema, queue
    ):
        broker = open_broker()
        await publish_numbers(broker, queue, range(5))
        holder: LoggedProcess = start(pooler.url(postgres_schema), "hold", queue)
        await asyncio.to_thread(holder.wait_for, "held 5", timeout=40)
        async with broker.subscribe([queue]) as subscription, asyncio.timeout(60):
            waiting = asyncio.create_task(subscription.take(10))
            await asyncio.sleep(1.5 * LEASE)
            assert not waiting.done(), "it lives, and its row is renewed"
            holder.kill()
            taken = await waiting
            while len(taken) < 5:
                taken += await subscription.take(10)
        assert [(number_of(one), one.redelivered, one.deliveries) for one in taken] == [
            (number, True, 2) for number in range(5)
        ]

    async def test_a_row_is_renewed_while_the_event_loop_is_busy(self, open_broker, queue):
        holder, other = open_broker(), open_broker()
        await publish_numbers(holder, queue, [1])
        async with holder.subscribe([queue]) as mine, other.subscribe([queue]) as theirs:
            (held,) = await take_some(mine, 1)
            _compute(2.5 * LEASE)
            waiting = asyncio.create_task(theirs.take(1))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            await held.receipt.ack()
            await theirs.stop()
            assert await waiting == []

    async def test_who_was_taken_for_dead_is_told_so_and_goes_on_under_another_number(
        self, open_broker, postgres_server, postgres_schema, queue
    ):
        broker = open_broker()
        await publish_numbers(broker, queue, range(2))
        async with broker.subscribe([queue]) as subscription:
            (held,) = await take_some(subscription, 1)
            with postgres_server.client(postgres_schema) as connection:
                connection.execute("DELETE FROM celeriac_owner")
                connection.execute("UPDATE celeriac_message SET owner = NULL WHERE owner IS NOT NULL")
            with pytest.raises(DeliveryLost):
                await held.receipt.ack()
            while broker._queues.owners._renewal.holds:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            assert sorted(number_of(one) for one in await take_all(subscription, 2)) == [0, 1]


async def test_a_worker_runs_what_is_sent_and_says_once_that_it_polls(pooler, postgres_schema, caplog):
    app = Celeriac("shop", pooler.url(postgres_schema))
    app.register("add", lambda a, b: a + b)
    with caplog.at_level(logging.WARNING, "celeriac.postgres"):
        async with app, app.worker() as worker, asyncio.timeout(60):
            await worker.ready()
            results = [await app.tasks["add"].send(n, 1) for n in range(5)]
            assert [await result for result in results] == [1, 2, 3, 4, 5]
    assert len([record for record in caplog.records if "behind a pooler" in record.message]) == 1


async def test_with_a_direct_address_beside_it_nothing_is_polled_for(
    pooler, postgres_url, postgres_schema, queue, caplog
):
    url = pooler.url(postgres_schema, listen_url=quote(postgres_url, safe=""))
    broker = PostgresBroker(Connections(parse_postgres_url(url), "test", 20.0))
    async with broker.subscribe([queue]) as subscription, asyncio.timeout(60):
        waiting = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.7)
        await publish_numbers(broker, queue, [1])
        (taken,) = await waiting
        await taken.receipt.ack()
    assert broker._queues.owners._renewal is None
    await broker.close()
    assert not [record for record in caplog.records if "behind a pooler" in record.message]


def _compute(seconds: float) -> None:
    """Keep the event loop busy, and the interpreter as a program does that computes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
