"""Messages for later and revocations in a SQLite file."""

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from celeriac.client.revocations import Revocations
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import DELIVERIES_HEADER, pack
from tests.sqlite.conftest import ClockAhead, printed

FIRST_SHAPE = """
CREATE TABLE celeriac_listener (name TEXT NOT NULL, topic TEXT NOT NULL, PRIMARY KEY (name, topic));
CREATE TABLE celeriac_queue (name TEXT NOT NULL PRIMARY KEY);
CREATE TABLE celeriac_owner (id INTEGER NOT NULL PRIMARY KEY, expires FLOAT NOT NULL);
CREATE TABLE celeriac_message (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, priority INTEGER NOT NULL, owner INTEGER,
    due_at FLOAT, redelivered INTEGER DEFAULT '0' NOT NULL, deliveries INTEGER DEFAULT '0' NOT NULL,
    frame BLOB NOT NULL);
CREATE TABLE celeriac_dead (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, priority INTEGER NOT NULL,
    reason TEXT NOT NULL, died_at FLOAT NOT NULL, frame BLOB NOT NULL);
"""
"""The tables as celeriac first made them."""


async def soon(awaitable):
    async with asyncio.timeout(60):
        return await awaitable


async def test_a_file_of_the_first_shape_still_opens(open_broker, file):
    frame = pack(Envelope(body=b"1"), delivery_tag="tag", route=Route("q"))
    row = "INSERT INTO celeriac_message (queue, priority, due_at, deliveries, frame) VALUES (?, 0, ?, ?, ?)"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(FIRST_SHAPE)
        connection.executemany(row, [("q", None, 2, frame), ("q", time.time() + 60, 0, frame)])
    broker = open_broker()
    (parked,) = await broker.schedule.list()
    assert (parked.queue, parked.envelope.body) == ("q", b"1")
    revocations = Revocations(broker.board, broker.schedule)
    await revocations.add(["a"], roots=["b"])
    assert (await revocations.load()).ids == {"a"}
    async with broker.subscribe(["q"]) as subscription:
        (delivery,) = await subscription.take(10)
        assert (delivery.deliveries, subscription.revision) == (3, await revocations.revision())
        await delivery.receipt.ack()


async def test_a_message_for_later_needs_no_worker_to_be_parked(open_broker):
    broker = open_broker()
    await broker.publish(Envelope(body=b"1"), Route("q", queue="q", due=time.time() + 60))
    assert (await broker.depth("q"), await broker.schedule.count()) == (0, 1)
    assert await broker.queues() == ["q"]


async def test_each_owner_that_dies_counts(open_broker, start):
    broker = open_broker(lease=1.0)
    await broker.publish(Envelope(body=b"1"), Route("q", queue="q"))
    for deliveries in (2, 3):
        holder = start("hold", "q")
        await printed(holder, "held")
        async with broker.subscribe(["q"]) as subscription:
            waiting = asyncio.create_task(subscription.take(1))
            assert await broker.depth("q") == 0
            holder.kill()
            (delivery,) = await soon(waiting)
        assert delivery.deliveries == deliveries
        assert delivery.envelope.headers[DELIVERIES_HEADER] == deliveries - 1
        await delivery.receipt.requeue()


async def test_what_came_due_while_nobody_looked_is_no_longer_parked(open_broker):
    broker, later = open_broker(), open_broker(clock=ClockAhead(100))
    await broker.publish(Envelope(body=b"1"), Route("q", queue="q", due=time.time() + 60))
    (entry,) = await broker.schedule.list()
    assert (await later.schedule.list(), await later.schedule.delete([entry.id])) == ([], 0)
    assert await later.depth("q") == 1


@pytest.mark.parametrize("ids", [[], ["", "x", "-1", "1.5", "99999999999999999999999", "²"]])
async def test_ids_that_are_none(open_broker, ids):
    broker = open_broker()
    await broker.publish(Envelope(body=b"1"), Route("q", queue="q", due=time.time() + 60))
    assert await broker.schedule.delete(ids) == 0
    assert await broker.dead.delete(ids) == 0


async def test_what_a_dead_process_held_comes_back_though_the_clock_was_put_back(open_broker, start):
    clock = ClockAhead()
    broker = open_broker(lease=1.0, clock=clock)
    await broker.publish(Envelope(body=b"1"), Route("q", queue="q"))
    holder = start("hold", "q")
    await printed(holder, "held")
    holder.kill()
    clock.turn(-3600)
    async with broker.subscribe(["q"]) as subscription:
        (delivery,) = await soon(subscription.take(1))
        assert delivery.redelivered
        await delivery.receipt.ack()
