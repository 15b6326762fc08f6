"""Takes from a queue that was empty until a great many messages came: ``python -m bench.clients.takes COUNT``.

Autovacuum is off, and the takes before had nothing to take: a plan that was made for an empty table would stay.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import asyncpg

from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.wire.envelope import Envelope, Route

IDLE = 20
TAKES = 100
BATCH = 200
QUEUE = "late"
FILL = """
    INSERT INTO celeriac_message (queue, priority, frame)
    SELECT $1, 0, repeat('x', 900)::bytea FROM generate_series(1, $2)"""


async def main(count: int) -> None:
    """Tell how many seconds each take needed."""
    url = os.environ["BENCH_POSTGRES"]
    broker, sender = (
        PostgresBroker(Connections(parse_postgres_url(url), name, 20.0)) for name in ("bench", "sender")
    )
    other = await asyncpg.connect(url)
    await broker.ping()
    await other.execute("ALTER TABLE celeriac_message SET (autovacuum_enabled = false)")
    await other.execute("VACUUM celeriac_message")
    async with broker.subscribe([QUEUE]) as subscription:
        for _ in range(IDLE):
            await _waits_in_vain(subscription)
        await other.execute(FILL, QUEUE, count)
        await sender.publish(Envelope(b""), Route(routing_key=QUEUE, queue=QUEUE))  # it tells who sleeps
        seconds: list[float] = []
        for _ in range(TAKES):
            began = time.perf_counter()
            deliveries = await subscription.take(BATCH)
            seconds.append(time.perf_counter() - began)
            await asyncio.gather(*[delivery.receipt.ack() for delivery in deliveries])
    await other.close()
    await broker.close()
    await sender.close()
    print(json.dumps({"seconds": seconds}))


async def _waits_in_vain(subscription: Any) -> None:
    taking = asyncio.create_task(subscription.take(BATCH))
    done, _ = await asyncio.wait([taking], timeout=0.05)
    assert not done, "nothing was there to take"
    taking.cancel()
    await asyncio.wait([taking])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
