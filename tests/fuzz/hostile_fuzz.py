"""Push bytes to queues, and into the broker's own keys and rows, of Redis and SQLite; no worker may end by them.

A round pushes mutated messages, has a process take them and die, and then has a worker do sound work beside them.
"""

import asyncio
import logging
import random
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from celeriac import Celeriac
from tests.fuzz.decode_fuzz import TOKENS, mutate, seeds
from tests.hostile.check import die_holding, make_app, runs, until
from tests.servers import RedisServer

AT_ONCE = 200
QUEUE = "fuzz"
SCORES: list[Any] = ["-inf", "inf", -1, 0, 1, 2.5, 1e300, 4e9]
SETS = ["unacked_index", "celeriac.leases", "celeriac.due", "celeriac.dead.index", "celeriac.served"]
COLUMNS = ["priority", "owner", "due_at", "redelivered", "deliveries", "frame"]


def texts(random_: random.Random, pool: list[bytes]) -> list[bytes]:
    return [mutate(random_, pool) for _ in range(AT_ONCE)]


async def works_on(app: Celeriac) -> None:
    """Check that a worker takes whatever waits, and runs what is sound."""
    async with app, app.worker(queues=[QUEUE]):
        assert await runs(app)

        async def is_empty() -> bool:
            return await app.connections().broker.depth(QUEUE) == 0

        await until(is_empty)
        broker = app.connections().broker
        await broker.schedule.list(limit=1000)
        await broker.dead.list(limit=1000)
        assert await runs(app)


async def redis_round(random_: random.Random, pool: list[bytes], server: RedisServer) -> None:
    found = texts(random_, pool)
    with server.client() as client:
        client.flushdb()
        client.lpush(QUEUE, *found)
        await die_holding(server.url(), QUEUE, client.llen(QUEUE) // 2)
        for entry in texts(random_, pool):
            tag = random_.choice([b"", b"parked-", b"a.", b"\xff"]) + bytes([random_.randrange(256)]) * 4
            client.hset("unacked", tag + random_.choice([b"", b":0", b":3", b":x"]), entry)
            client.zadd(random_.choice(SETS), {tag: random_.choice(SCORES)})
        client.set("celeriac.revoked.revision", random_.choice(TOKENS))
    await works_on(make_app(server.url(), QUEUE, server.url()))


async def sqlite_round(random_: random.Random, pool: list[bytes], directory: Path) -> None:
    file = directory / f"{random_.randrange(2**32)}.db"
    url = f"sqlite:///{file}"
    async with make_app(url, QUEUE) as app:
        await app.connections().broker.depth(QUEUE)
    values = [None, *SCORES, *TOKENS, "text", b"\xff"]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for text in texts(random_, pool):
            row = {"queue": QUEUE, "priority": 0, "owner": None, "due_at": None, "frame": text}
            if random_.randrange(2):
                row[random_.choice(COLUMNS)] = random_.choice(values)
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            insert = f"INSERT OR IGNORE INTO celeriac_message ({names}) VALUES ({marks})"
            connection.execute(insert, list(row.values()))
    await die_holding(url, QUEUE, AT_ONCE // 8)
    await works_on(make_app(url, QUEUE))


async def search_all(random_: random.Random, seconds: float) -> int:
    pool, end, count = seeds(), time.monotonic() + seconds, 0
    with RedisServer() as server, tempfile.TemporaryDirectory() as directory:
        while count == 0 or time.monotonic() < end:
            await redis_round(random_, pool, server)
            await sqlite_round(random_, pool, Path(directory))
            count += 3 * AT_ONCE
    return count


def search(seed: int, seconds: float) -> int:
    """Try mutated texts for so long, at least one round of them; returns how many. Repeatable by its seed."""
    logging.getLogger("celeriac").setLevel(logging.CRITICAL)  # it says what it refuses, thousands of times
    return asyncio.run(search_all(random.Random(seed), seconds))
