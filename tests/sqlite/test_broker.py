"""What a SQLite broker does that no contract asks of every broker."""

import asyncio
import errno
import fcntl
import os
import signal
import socket
import sqlite3
import threading

import pytest

from celeriac.clock import SystemClock
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.servers.sqlite import SqliteBroker
from celeriac.servers.sqlite.limits import FileLimits
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import DELIVERIES_HEADER
from tests.sqlite.conftest import ClockAhead, printed


def message(body="1", priority=0):
    return Envelope(body=body.encode(), priority=priority)


def to(queue):
    return Route(queue, queue=queue)


async def soon(awaitable):
    async with asyncio.timeout(60):
        return await awaitable


def rows(file, query):
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def locks(file):
    return list(file.parent.glob("*.owner"))


class TestOwners:
    async def test_a_killed_process_gives_its_messages_to_one_that_waits(self, open_broker, start):
        broker = open_broker()
        await broker.publish(message(), to("q"))
        holder = start("hold", "q")
        await printed(holder, "held")
        async with broker.subscribe(["q"]) as subscription:
            waiting = asyncio.create_task(subscription.take(1))
            assert await broker.depth("q") == 0
            holder.kill()
            (delivery,) = await soon(waiting)
        assert delivery.redelivered
        assert delivery.envelope.redelivered
        assert delivery.envelope.headers[DELIVERIES_HEADER] == 1

    async def test_a_process_that_lives_keeps_its_messages_longer_than_the_lease(self, open_broker):
        holder, other = open_broker(lease=0.3), open_broker(lease=0.3)
        await holder.publish(message(), to("q"))
        async with holder.subscribe(["q"]) as subscription, other.subscribe(["q"]) as waiter:
            (delivery,) = await subscription.take(1)
            waiting = asyncio.create_task(waiter.take(1))
            done, _ = await asyncio.wait([waiting], timeout=1.0)
            assert not done
            await delivery.receipt.ack()
            await waiter.stop()
            assert await waiting == []

    async def test_a_lock_file_that_is_gone_voids_the_receipt(self, open_broker, file):
        holder, other = open_broker(), open_broker()
        await holder.publish_many([(message("1"), to("q")), (message("2"), to("q"))])
        async with holder.subscribe(["q"]) as subscription, other.subscribe(["q"]) as others:
            (lost,) = await subscription.take(1)
            (lock,) = locks(file)
            lock.unlink()
            (found,) = await soon(others.take(1))
            assert (lost.envelope.body, found.envelope.body) == (b"1", b"1")
            with pytest.raises(DeliveryLost):
                await lost.receipt.ack()
            await found.receipt.ack()
            (own,) = await subscription.take(1)
            await own.receipt.ack()
        assert rows(file, "SELECT * FROM celeriac_message") == []

    async def test_the_same_process_taking_it_again_does_not_revive_the_old_receipt(self, open_broker, file):
        holder, other = open_broker(), open_broker()
        await holder.publish(message(), to("q"))
        async with holder.subscribe(["q"]) as subscription:
            (old,) = await subscription.take(1)
            (lock,) = locks(file)
            lock.unlink()
            assert await other.depth("q") == 1
            (new,) = await subscription.take(1)
            with pytest.raises(DeliveryLost):
                await old.receipt.ack()
            await new.receipt.ack()

    async def test_a_clock_that_is_ahead_takes_nothing(self, open_broker):
        holder, other = open_broker(lease=1.0), open_broker(lease=1.0, clock=ClockAhead(1_000_000))
        await holder.publish(message(), to("q"))
        async with holder.subscribe(["q"]) as subscription:
            (held,) = await subscription.take(1)
            assert await other.depth("q") == 0
            await held.receipt.ack()

    async def test_a_process_forked_from_one_that_was_killed_holds_nothing(self, open_broker, start):
        broker = open_broker()
        await broker.publish(message(), to("q"))
        holder = start("hold_and_fork", "q")
        line = await asyncio.to_thread(holder.wait_for, "forked ")
        try:
            holder.kill()
            async with broker.subscribe(["q"]) as subscription:
                (delivery,) = await soon(subscription.take(1))
                await delivery.receipt.ack()
        finally:
            os.kill(int(line.removeprefix("forked ")), signal.SIGKILL)

    async def test_files_of_the_dead_are_deleted(self, open_broker, file, start):
        broker = open_broker()
        await broker.publish(message(), to("q"))
        holder, idle = start("hold", "q"), start("consume", "other")
        await printed(holder, "held")
        await broker.publish(message("done"), to("other"))
        await printed(idle, "took")
        assert len(locks(file)) == 2
        holder.kill()
        idle.kill()
        async with broker.subscribe(["q"]) as subscription:
            (delivery,) = await soon(subscription.take(1))
            await delivery.receipt.ack()
            assert len(locks(file)) == 1, "our own"
        await broker.close()
        assert not locks(file)

    async def test_where_no_lock_can_be_made_nothing_is_taken(self, open_broker, file, monkeypatch):
        broker = open_broker()
        await broker.publish(message(), to("q"))

        def refuse(descriptor, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        async with broker.subscribe(["q"]) as subscription:
            with pytest.raises(BrokerError, match=r"shop\.db.*No locks available"):
                await subscription.take(1)
        assert await broker.depth("q") == 1
        assert not locks(file)

    async def test_close_gives_back_what_is_held(self, open_broker):
        broker, other = open_broker(), open_broker()
        await broker.publish(message(), to("q"))
        async with other.subscribe(["q"]) as waiter, broker.subscribe(["q"]) as subscription:
            await subscription.take(1)
            waiting = asyncio.create_task(waiter.take(1))
            await other.depth("q")
            await broker.close()
            (delivery,) = await soon(waiting)
        assert delivery.redelivered
        assert DELIVERIES_HEADER not in delivery.envelope.headers

    async def test_waiting_writes_nothing(self, open_broker, file):
        broker = open_broker(lease=0.2)
        async with broker.subscribe(["q"]) as subscription:
            waiting = asyncio.create_task(subscription.take(1))
            await broker.publish(message(), to("q"))
            (delivery,) = await soon(waiting)
            await delivery.receipt.ack()
            waiting = asyncio.create_task(subscription.take(1))
            observer = sqlite3.connect(file)
            before = observer.execute("PRAGMA data_version").fetchone()
            await asyncio.wait([waiting], timeout=0.5)
            after = observer.execute("PRAGMA data_version").fetchone()
            observer.close()
            assert before == after
            await subscription.stop()
            await waiting


class TestProcesses:
    async def test_what_was_published_survives_a_kill(self, open_broker, start):
        publisher = start("publish", "q", "hello")
        await printed(publisher, "published")
        publisher.kill()
        assert [envelope.body for envelope in await open_broker().peek("q")] == [b"hello"]

    async def test_many_processes_share_one_new_file(self, open_broker, start, file):
        takers = [start("consume", "q") for _ in range(3)]
        for taker in takers:
            await printed(taker, "ready")
        broker = open_broker()
        await asyncio.gather(*[broker.publish(message(f"m{number}"), to("q")) for number in range(150)])
        for _ in takers:
            await broker.publish(message("stop"), to("q"))
        for taker in takers:
            await printed(taker, "done")
            assert await asyncio.to_thread(taker.wait) == 0
        took = [
            line.removeprefix("took ") for taker in takers for line in taker.lines if line.startswith("took")
        ]
        assert sorted(took) == sorted(f"m{number}" for number in range(150))
        await broker.close()
        assert sorted(path.name for path in file.parent.iterdir()) == ["shop.db"]


class TestWaking:
    """Between connections that share no memory but the file."""

    async def wakes(self, publisher, subscriber, times=3):
        async with subscriber.subscribe(["q"]) as subscription:
            for _ in range(times):
                waiting = asyncio.create_task(subscription.take(1))
                await subscriber.depth("q")
                await publisher.publish(message(), to("q"))
                await soon(waiting)
        return True

    async def test_a_poke_is_enough(self, open_broker):
        limits = FileLimits(look=3600.0)
        assert await self.wakes(open_broker(limits=limits), open_broker(limits=limits))

    async def test_a_long_path(self, open_broker, tmp_path):
        directory = tmp_path / ("d" * 200)
        directory.mkdir()
        path = directory / "shop.db"
        assert await self.wakes(open_broker(path), open_broker(path))

    async def test_without_sockets(self, open_broker, monkeypatch):
        monkeypatch.delattr(socket, "AF_UNIX")
        assert await self.wakes(open_broker(), open_broker())

    async def test_only_those_are_poked_who_wait_for_the_queue(self, open_broker, file):
        subscriber = open_broker()
        async with subscriber.subscribe(["q", "other"]) as subscription:
            assert sorted(rows(file, "SELECT topic FROM celeriac_listener")) == [("other",), ("q",)]
            await subscription.drop_queue("other")
            assert rows(file, "SELECT topic FROM celeriac_listener") == [("q",)]
        assert rows(file, "SELECT topic FROM celeriac_listener") == []

    async def test_a_listener_that_died_is_forgotten(self, open_broker, file):
        publisher, subscriber = open_broker(), open_broker()
        async with subscriber.subscribe(["q"]):
            gone = file.with_name("shop.db.0123456789ab.wake")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
                dead.bind(str(gone))
            connection = sqlite3.connect(file)
            with connection:
                connection.execute(
                    "INSERT INTO celeriac_listener VALUES (?, 'q'), ('never-was', 'q')", (gone.name,)
                )
            connection.close()
            await publisher.publish(message(), to("q"))
            names = [name for (name,) in rows(file, "SELECT name FROM celeriac_listener")]
            assert gone.name not in names
            assert "never-was" not in names
            assert len(names) == 1
            assert not gone.exists()


class HeldClock(SystemClock):
    """A clock that the thread of a file waits for while it is held."""

    def __init__(self):
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()

    def now(self):
        if threading.current_thread() is not threading.main_thread():
            self.asked.set()
            self.goes_on.wait()
        return SystemClock.now()


async def test_stop_waits_for_the_take_that_is_under_way(open_broker, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")  # nor is there another write for stop to wait for
    clock = HeldClock()
    broker = open_broker(clock=clock)
    await broker.publish(message(), to("q"))
    async with broker.subscribe(["q"]) as subscription:
        clock.asked.clear()
        clock.goes_on.clear()
        waiting = asyncio.create_task(subscription.take(1))
        await asyncio.to_thread(clock.asked.wait)
        stopping = asyncio.create_task(subscription.stop())
        for _ in range(20):
            await asyncio.sleep(0)
        stopped_early = stopping.done()
        clock.goes_on.set()
        await soon(stopping)
        assert not stopped_early
        assert len(await waiting) == 1


class TestTrouble:
    async def test_a_new_file_that_another_program_is_writing_is_waited_for(self, open_broker, file):
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.1, other.execute, "ROLLBACK")
        assert await open_broker().depth("q") == 0
        other.close()

    async def test_a_locked_file_is_worth_another_try(self, open_broker, file):
        broker = open_broker(limits=FileLimits(busy=0.05))
        await broker.ping()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match=r"shop\.db.*lock"):
                await broker.publish(message(), to("q"))
        other.execute("ROLLBACK")
        other.close()
        await broker.publish(message(), to("q"))
        assert await broker.depth("q") == 1

    async def test_a_receipt_outlives_a_lock(self, open_broker, file):
        broker = open_broker(limits=FileLimits(busy=0.05))
        await broker.publish(message(), to("q"))
        async with broker.subscribe(["q"]) as subscription:
            (delivery,) = await subscription.take(1)
            other = sqlite3.connect(file, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BrokerUnavailable):
                await delivery.receipt.ack()
            other.execute("ROLLBACK")
            other.close()
            await delivery.receipt.ack()
            with pytest.raises(DeliveryLost):
                await delivery.receipt.ack()

    async def test_a_full_disk_is_worth_another_try_and_loses_nothing(self, open_broker):
        broker = open_broker()
        await broker.publish(message(), to("q"))
        pages = "PRAGMA max_page_count"
        await broker._file.link.read(lambda connection: connection.execute(f"{pages}=40").fetchall())
        with pytest.raises(BrokerUnavailable, match="full"):
            await broker.publish(message("x" * 1_000_000), to("q"))
        await broker._file.link.read(lambda connection: connection.execute(f"{pages}=4000").fetchall())
        await broker.publish(message("x" * 1_000_000), to("q"))
        assert await broker.depth("q") == 2

    async def test_a_file_that_is_no_database(self, open_broker, file):
        file.write_text("dear diary, " * 100)
        broker = open_broker()
        for _ in range(2):
            with pytest.raises(BrokerError, match=r"shop\.db.*no SQLite database") as caught:
                await broker.ping()
            assert not isinstance(caught.value, BrokerUnavailable)
            assert "\n" not in str(caught.value)
        assert file.read_text().startswith("dear diary")

    @pytest.mark.parametrize("path", ["nowhere/shop.db", "nowhere/../shop.db"])
    async def test_a_directory_that_is_not_there(self, open_broker, tmp_path, path):
        broker = open_broker(tmp_path / path)
        with pytest.raises(BrokerError, match=r"nowhere.*directory exists"):
            await broker.publish(message(), to("q"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_a_file_that_may_not_be_written(self, open_broker, file):
        await open_broker().ping()
        file.chmod(0o400)
        with pytest.raises(BrokerError, match="permissions"):
            await open_broker().publish(message(), to("q"))

    async def test_a_broker_that_did_nothing_makes_no_file(self, file):
        await SqliteBroker(str(file)).close()
        assert not file.exists()

    async def test_a_closed_broker_opens_again(self, open_broker):
        broker = open_broker()
        await broker.publish(message(), to("q"))
        await broker.close()
        async with broker.subscribe(["q"]) as subscription:
            (delivery,) = await soon(subscription.take(1))
            await delivery.receipt.ack()


async def test_queues_take_turns_within_one_take(open_broker):
    broker = open_broker()
    for queue in "abc":
        await broker.publish_many([(message(str(number)), to(queue)) for number in range(5)])
    async with broker.subscribe("abc") as subscription:
        taken = await subscription.take(6)
    assert sorted(delivery.queue for delivery in taken) == ["a", "a", "b", "b", "c", "c"]


async def test_a_batch_larger_than_one_statement_takes(open_broker):
    broker = open_broker(limits=FileLimits(batch=5000))
    bodies = [os.urandom(size) for size in (1, 9000, 0, 3000, 3000, 1)]
    await broker.publish_many([(Envelope(body=body), to("q")) for body in bodies])
    got = []
    async with broker.subscribe(["q"]) as subscription:
        while len(got) < len(bodies):
            taken = await soon(subscription.take(10))
            assert len(taken) < len(bodies)
            got += [delivery.envelope.body for delivery in taken]
    assert got == bodies
