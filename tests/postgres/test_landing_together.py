"""Endings of a worker that is behind wait for each other: a transaction costs the server as much as many endings."""

import asyncio
from collections.abc import Callable

from celeriac.contracts.broker import Delivery
from celeriac.contracts.server import Landing
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.testing.steps import numbered
from celeriac.wire.envelope import Route
from celeriac.wire.result import SUCCESS, ResultRecord
from tests.servers import PostgresServer

STORED = "SELECT count(*), count(DISTINCT xmin::text) FROM celery_taskmeta WHERE task_id LIKE 'behind-%'"


async def test_what_ends_while_messages_are_held_lands_together(
    connect: Callable[..., Connections],
    open_results: Callable[..., PostgresBackend],
    postgres_server: PostgresServer,
    postgres_schema: str,
    queue: str,
) -> None:
    broker, results = PostgresBroker(connect()), open_results()
    settlements = broker.settlements(results)
    assert settlements is not None

    def landing(delivery: Delivery, task_id: str) -> Landing:
        return Landing(delivery.receipt, [results.encode(ResultRecord(task_id, SUCCESS, result=5))])

    await broker.publish_many([(numbered(number), Route(queue, queue=queue)) for number in range(2000)])
    async with broker.subscribe([queue]) as subscription:
        (before,) = await subscription.take(1)
        await settlements.land(landing(before, "before"))
        subscription.prefetch = 64
        while len(subscription.held()) < 3:
            await subscription.take(1)
        settlements._land_plain._patience = 3600.0
        (first,) = await subscription.take(1)
        waits = asyncio.create_task(settlements.land(landing(first, "behind-1")))
        (second,) = await subscription.take(1)
        with postgres_server.client(postgres_schema) as connection:
            for _ in range(20):
                await asyncio.sleep(0)
            assert connection.execute(STORED).fetchone() == (0, 0)
            await subscription.let_go()
            await asyncio.gather(waits, settlements.land(landing(second, "behind-2")))
            assert connection.execute(STORED).fetchone() == (2, 1)
    await broker.close()
