"""Publishes from 32 connections, one at a time each: ``python -m bench.clients.writers wake SECONDS``.

``wake`` runs celeriac's own statement, ``plain`` the same insert without a look at who sleeps.
"""

import asyncio
import json
import os
import sys
import time

import asyncpg

from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.messages import ADD_ONE
from celeriac.servers.postgres.sleeping import channel_of

WRITERS = 32
FRAME = b"x" * 900
PLAIN = f"""
    INSERT INTO celeriac_message (queue, priority, due_at, frame)
    VALUES ($1::text, $2::smallint, CASE WHEN $3::float8 > {NOW} THEN $3::float8 END, $4)"""
ROW = ("writers", 0, None, FRAME)


async def main(how: str, seconds: float) -> None:
    """Tell how many messages a second were published."""
    channel = channel_of("public", "writers")
    statement, values = (ADD_ONE, (*ROW, channel)) if how == "wake" else (PLAIN, ROW)
    until = 0.0

    async def write(connection: asyncpg.Connection) -> int:
        prepared, count = await connection.prepare(statement), 0
        while time.perf_counter() < until:
            await prepared.fetch(*values)
            count += 1
        return count

    connections = [await asyncpg.connect(os.environ["BENCH_POSTGRES"]) for _ in range(WRITERS)]
    began = time.perf_counter()
    until = began + seconds
    counts = await asyncio.gather(*map(write, connections))
    rate = sum(counts) / (time.perf_counter() - began)
    await asyncio.gather(*(connection.close() for connection in connections))
    print(json.dumps({"rate": rate}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
