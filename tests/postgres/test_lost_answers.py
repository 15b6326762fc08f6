"""What was taken by a statement whose answer was lost with the connection."""

import asyncio
from collections.abc import Callable

import pytest

from celeriac.errors import BrokerUnavailable, DeliveryLost
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.testing.steps import number_of, publish_numbers, take_all
from tests.amqp.proxy import Proxy
from tests.servers import PostgresServer


class Swallowing(Proxy):
    """Cuts a line in the place of an answer that holds a message."""

    swallows = False

    def rewriter(self) -> Callable[[bytes], bytes]:
        def rewrite(data: bytes) -> bytes:
            if self.swallows and b"application/json" in data:
                self.swallows = False
                self.cut()
                return b""
            return data

        return rewrite


class Cutting(Proxy):
    """Cuts a line in the place of the end of an answer."""

    cuts = False

    def rewriter(self) -> Callable[[bytes], bytes]:
        def rewrite(data: bytes) -> bytes:
            if self.cuts and b"SELECT " in data:
                self.cuts = False
                self.cut()
                return b""
            return data

        return rewrite


async def test_a_take_whose_answer_was_lost_holds_nothing_back(
    postgres_server: PostgresServer, postgres_schema: str, queue: str
):
    async with Swallowing(postgres_server.port) as line:
        url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres?schema={postgres_schema}"
        broker = PostgresBroker(Connections(parse_postgres_url(url), "test", 20.0))
        async with broker.subscribe([queue]) as subscription:
            await publish_numbers(broker, queue, [1])
            (held,) = await take_all(subscription, 1)
            line.swallows = True
            await publish_numbers(broker, queue, [2])
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(subscription.take(1), 60)
            async with asyncio.timeout(60):
                (again,) = await insist_taking(subscription)
            assert (number_of(again), again.redelivered, again.deliveries) == (2, False, 1)
            # What it held before is its own still.
            await held.receipt.ack()
            await again.receipt.ack()
            assert await broker.depth(queue) == 0
        assert broker._queues.strays.held == []
        await broker.close()


async def test_what_was_given_back_without_an_answer_and_taken_again_is_not_given_back_twice(
    postgres_server: PostgresServer, postgres_schema: str, queue: str
):
    """The second giving back would hand the message to another worker while its body runs here."""
    async with Cutting(postgres_server.port) as line:
        url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres?schema={postgres_schema}"
        broker = PostgresBroker(Connections(parse_postgres_url(url), "test", 20.0))
        async with broker.subscribe([queue]) as subscription, asyncio.timeout(60):
            await publish_numbers(broker, queue, [1])
            (first,) = await take_all(subscription, 1)
            line.cuts = True
            with pytest.raises(BrokerUnavailable):
                await first.receipt.requeue()
            (again,) = await insist_taking(subscription)
            assert (number_of(again), again.redelivered) == (1, True)
            with pytest.raises(DeliveryLost):
                await first.receipt.requeue()
            with postgres_server.client(postgres_schema) as connection:
                held = connection.execute("SELECT owner FROM celeriac_message").fetchall()
            assert held == [(broker._queues.owners.own,)], "it is this process's still"
            await again.receipt.ack()
            assert broker._queues.strays.held == []
        await broker.close()


async def insist_taking(subscription):
    """Take once the broker is there."""
    while True:
        try:
            return await subscription.take(1)
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
