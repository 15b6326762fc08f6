"""What the fanout of a SQLite file leaves in it, and how it hears another process."""

import asyncio
import sqlite3
import time
from pathlib import Path

from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.servers.sqlite import SqliteBroker
from celeriac.testing.clock import ManualClock
from celeriac.testing.steps import number_in, numbered, soon

EXCHANGE = Exchange("celery.pidbox")


def rows(file: Path, table: str) -> int:
    with sqlite3.connect(file) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


async def test_nothing_is_written_where_nobody_listens(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    broker = SqliteBroker(str(file))
    await broker.fanout.publish(EXCHANGE, numbered(1))
    assert not await broker.fanout.answer(ReplyTo("reply.celery.pidbox", "me"), numbered(1))
    assert rows(file, "celeriac_broadcast") == 0
    async with broker.fanout.listen([Binding(exchange=EXCHANGE)]):
        await broker.fanout.publish(EXCHANGE, numbered(1))
        assert rows(file, "celeriac_broadcast") == 1
        assert rows(file, "celeriac_binding") == 1
    assert rows(file, "celeriac_binding") == 0
    await broker.close()


async def test_a_killed_listener_counts_until_its_lease_ends_and_leaves_nothing(tmp_path: Path) -> None:
    file, clock = tmp_path / "shop.db", ManualClock()
    broker = SqliteBroker(str(file), clock=clock)
    await broker.ping()
    with sqlite3.connect(file) as connection:
        lease = ("killed", EXCHANGE.name, "", clock.now() + 30)
        connection.execute("INSERT INTO celeriac_binding VALUES (?, ?, ?, ?)", lease)
    connection.close()
    assert await broker.fanout.publish(EXCHANGE, numbered(1)) == 1
    assert rows(file, "celeriac_broadcast") == 1
    clock.advance(61.0)
    assert await broker.fanout.publish(EXCHANGE, numbered(2)) == 0
    assert (rows(file, "celeriac_broadcast"), rows(file, "celeriac_binding")) == (0, 0)
    await broker.close()


async def test_a_listener_renews_its_lease(tmp_path: Path) -> None:
    clock = ManualClock()
    one, two = (SqliteBroker(str(tmp_path / "shop.db"), clock=clock) for _ in range(2))
    async with one.fanout.listen([Binding(exchange=EXCHANGE)]) as heard:
        for number in range(5):
            clock.advance(20.0)
            assert await two.fanout.publish(EXCHANGE, numbered(number)) == 1
            assert number_in(await soon(anext(heard))) == number
    await one.close()
    await two.close()


async def test_a_listener_is_poked_and_hears_at_once(tmp_path: Path) -> None:
    """Without the poke it would be a second until the next look at the file."""
    file = str(tmp_path / "shop.db")
    one, two = SqliteBroker(file), SqliteBroker(file)
    delays = []
    async with one.fanout.listen([Binding(exchange=EXCHANGE)]) as heard:
        for number in range(7):
            began = asyncio.get_running_loop().time()
            await two.fanout.publish(EXCHANGE, numbered(number))
            assert number_in(await soon(anext(heard))) == number
            delays.append(asyncio.get_running_loop().time() - began)
    assert sorted(delays)[3] < 0.3
    await one.close()
    await two.close()


async def test_a_foreign_row_is_unreadable_and_harms_nobody(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    broker = SqliteBroker(str(file))
    async with broker.fanout.listen([Binding(exchange=EXCHANGE)]) as heard:
        with sqlite3.connect(file) as connection:
            soon_over = time.time() + 30  # a row that lasts much longer is none of ours, and passed over
            for frame in ("text", 7, b"no frame"):
                connection.execute(
                    "INSERT INTO celeriac_broadcast (exchange, key, expires, frame) VALUES (?, ?, ?, ?)",
                    (EXCHANGE.name, 5, soon_over, frame),
                )
            connection.execute("INSERT INTO celeriac_binding VALUES (x'00ff', 'celery.pidbox', 7, 9e9)")
        connection.close()
        await broker.fanout.publish(EXCHANGE, numbered(1))
        got = [await soon(anext(heard)) for _ in range(4)]
    assert [hasattr(message, "raw") for message in got] == [True, True, True, False]
    await broker.close()
