"""Push bytes to queues, and into the keys, rows and records of Redis, SQLite and PostgreSQL; no worker may end by them.

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
from tests.fuzz import schedule_fuzz
from tests.fuzz.decode_fuzz import TOKENS, mutate, seeds
from tests.hostile.check import die_holding, make_app, runs, until
from tests.servers import PostgresServer, RedisServer

AT_ONCE = 200
QUEUE = "fuzz"
SCORES: list[Any] = ["-inf", "inf", -1, 0, 1, 2.5, 1e300, 4e9]
SETS = ["unacked_index", "celeriac.leases", "celeriac.due", "celeriac.dead.index", "celeriac.served"]
COLUMNS = ["priority", "owner", "due_at", "redelivered", "deliveries", "frame"]
OF_POSTGRES: dict[str, list[Any]] = {
    "priority": [0, 9],
    "owner": [-(2**31), 0, 1, 2**31 - 1],
    "due_at": [float("nan"), float("-inf"), float("inf"), -1.0, 4e9, 1e300],
    "deliveries": [-(2**31), -1, 5, 2**31 - 1],
}
RECORDS = 50


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


async def postgres_round(random_: random.Random, pool: list[bytes], server: PostgresServer) -> None:
    schema = f"fuzz_{random_.randrange(2**32)}"
    with server.client() as rows:
        rows.execute(f"CREATE SCHEMA {schema}")
    url = server.url(schema)
    async with make_app(url, QUEUE) as app:
        await app.connections().broker.depth(QUEUE)
    with server.client(schema) as rows:
        for text in texts(random_, pool):
            row: dict[str, Any] = {"queue": QUEUE, "priority": 0, "frame": text}
            if random_.randrange(2):
                column = random_.choice(list(OF_POSTGRES))
                row[column] = random_.choice(OF_POSTGRES[column])
            marks = ", ".join(["%s"] * len(row))
            rows.execute(
                f"INSERT INTO celeriac_message ({', '.join(row)}) VALUES ({marks})", list(row.values())
            )
    await die_holding(url, QUEUE, AT_ONCE // 8)
    await works_on(make_app(url, QUEUE))


async def board_round(random_: random.Random, url: str) -> None:
    """Put mutated records of periodic tasks and of pauses on a board; what is sound is ticked and run."""
    app, pool = make_app(url, QUEUE, url), schedule_fuzz.seeds()
    app.periodic(0.1, name="sound", args=[1])(app.tasks["ok"])
    async with app:
        sets = app.connections().broker.board.sets
        found = [schedule_fuzz.put_value(random_, random_.choice(pool)) for _ in range(RECORDS)]
        found += [mutate(random_, pool) for _ in range(RECORDS)]
        # An index of PostgreSQL holds no more, and its texts no NUL.
        records = [text for text in (raw.decode(errors="replace") for raw in found) if len(text) < 2000]
        kept = [text.replace("\0", "") for text in records]
        await sets.add(f"beat.{app.name}", {"entries": kept, "paused": kept[:5]}, 600)
        await sets.add("paused", {"queues": kept[:5], f"told:{QUEUE}": kept[:5]}, 600)
        async with app.worker(queues=[QUEUE]):
            assert await runs(app)

            async def is_ticked() -> bool:
                return any(one.name == "sound" and one.last is not None for one in await app.schedules.list())

            await until(is_ticked, 60.0)


async def search_all(random_: random.Random, seconds: float) -> int:
    pool, end, count = seeds(), time.monotonic() + seconds, 0
    with (
        RedisServer() as server,
        PostgresServer() as postgres,
        tempfile.TemporaryDirectory() as directory,
    ):
        while count == 0 or time.monotonic() < end:
            await redis_round(random_, pool, server)
            await sqlite_round(random_, pool, Path(directory))
            await postgres_round(random_, pool, postgres)
            place = f"sqlite:///{directory}/board{count}.db"
            await board_round(random_, random_.choice([place, server.url(), postgres.url()]))
            count += 4 * AT_ONCE + 2 * RECORDS
    return count


def search(seed: int, seconds: float) -> int:
    """Try mutated texts for so long, at least one round of them; returns how many. Repeatable by its seed."""
    logging.getLogger("celeriac").setLevel(logging.CRITICAL)  # it says what it refuses, thousands of times
    return asyncio.run(search_all(random.Random(seed), seconds))
