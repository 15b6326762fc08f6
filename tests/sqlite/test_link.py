"""Jobs that wait for the file's thread at the same time share a transaction, and harm each other in nothing."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from celeriac.clock import SystemClock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.sqlite.link import SqliteLink

SCHEMA = "CREATE TABLE number (n INTEGER PRIMARY KEY);"


@pytest.fixture
async def link(file) -> AsyncIterator[SqliteLink]:
    async with AsyncExitStack() as stack:
        link = SqliteLink(str(file), SCHEMA, SystemClock(), away=BrokerUnavailable, refused=BrokerError)
        stack.push_async_callback(link.close)
        yield link


@asynccontextmanager
async def busy(link: SqliteLink) -> AsyncIterator[None]:
    """Keep the file's thread busy in the block, so that what is asked for in it is waiting when the block ends."""
    begun, ends = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        ends.wait(60)

    working = asyncio.create_task(link.read(work))
    try:
        await asyncio.wait_for(begun.wait(), 60)
        yield
        await asyncio.sleep(0)  # what was asked for is on its way
    finally:
        ends.set()
        await working


async def add_at_once(link: SqliteLink, *works: Callable[[sqlite3.Connection], object]) -> list[object]:
    async with busy(link):
        writes = [asyncio.create_task(link.write(work)) for work in works]
        await asyncio.sleep(0)
    return await asyncio.gather(*writes, return_exceptions=True)


def adding(n: int, then: Exception | None = None) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO number VALUES (?)", (n,))
        if then is not None:
            raise then
        return n

    return work


async def numbers(link: SqliteLink) -> list[int]:
    return await link.read(
        lambda connection: [n for (n,) in connection.execute("SELECT n FROM number ORDER BY n")]
    )


async def test_what_waits_shares_a_transaction(link):
    said: list[str] = []
    await link.read(lambda connection: connection.set_trace_callback(said.append))
    assert await add_at_once(link, adding(1), adding(2), adding(3)) == [1, 2, 3]
    assert said.count("COMMIT") == 1
    assert await numbers(link) == [1, 2, 3]


async def test_what_raises_is_undone_and_the_others_stay(link):
    error = ValueError("no")
    assert await add_at_once(link, adding(1), adding(2, error), adding(3)) == [1, error, 3]
    assert await numbers(link) == [1, 3]


async def test_a_failure_that_undoes_the_whole_transaction_costs_nobody_else_his_write(link):
    def guilty(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO number VALUES (1)")

    first, refused, last = await add_at_once(link, adding(1), guilty, adding(3))
    assert (first, last) == (1, 3)
    assert isinstance(refused, BrokerError)
    assert await numbers(link) == [1, 3]


async def test_more_tables_may_be_required_at_any_time(link):
    await link.write(adding(1))
    link.require("CREATE TABLE later (n);")
    assert await link.read(lambda connection: connection.execute("SELECT * FROM later").fetchall()) == []
