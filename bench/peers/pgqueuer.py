"""pgqueuer: ``python -m bench.peers.pgqueuer fill 1000``, and ``work 10`` in batches of ten until it is told to end."""

import asyncio
import os
import signal
import sys
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries


async def fill(connection: Any, count: int) -> None:
    """Make the tables, and send that many jobs."""
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for start in range(0, count, 1000):
        some = min(1000, count - start)
        await queries.enqueue(["add"] * some, [b"[2, 3]"] * some, [0] * some)


async def work(connection: Any, batch: int) -> None:
    """Do next to nothing for each job, taking so many at once, until SIGTERM."""
    queuer = PgQueuer(AsyncpgDriver(connection))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)

    @queuer.entrypoint("add")
    async def add(job: Any) -> None:
        """Do nothing."""

    await queuer.run(batch_size=batch)


async def main(command: str, count: int = 0) -> None:
    """Run one of the above."""
    connection = await asyncpg.connect(os.environ["BENCH_POSTGRES"])
    await {"fill": fill, "work": work}[command](connection, count)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
