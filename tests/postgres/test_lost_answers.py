"""What was taken by a statement whose answer was lost with the connection."""

import asyncio
from collections.abc import Callable

import pytest

from celeriac.errors import BrokerUnavailable
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
                await asyncio.wait_for(subscription.take(1), 20)
            async with asyncio.timeout(20):
                while True:
                    try:
                        (again,) = await subscription.take(1)
                        break
                    except BrokerUnavailable:
                        await asyncio.sleep(0.05)
            assert (number_of(again), again.redelivered, again.deliveries) == (2, False, 1)
            # What it held before is its own still.
            await held.receipt.ack()
            await again.receipt.ack()
            assert await broker.depth(queue) == 0
        assert broker._queues.strays.held == []
        await broker.close()
