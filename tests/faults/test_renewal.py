"""The process that renews: how it reaches each kind of Redis, and what ends it and brings it back."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

import redis
from celeriac.servers.redis import renewal
from celeriac.servers.redis.broker import RedisBroker
from celeriac.wire.envelope import Envelope, Route
from tests.faults.conftest import ends_within
from tests.servers import RedisSentinel, RedisServer


async def held(broker: RedisBroker, queue: str) -> int:
    """Hold a message of this broker; return the id of the process that renews."""
    await broker.publish(Envelope(body=b"{}"), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        await subscription.take(1)
    pid = broker._leases._renewer.pid
    assert pid is not None
    return pid


async def renewed(client: redis.Redis, broker: RedisBroker, times: int = 2, timeout: float = 60) -> None:
    """Wait until the lease was renewed so often."""
    seen: set[float] = set()
    async with asyncio.timeout(timeout):
        while len(seen) <= times:
            ((_, ends),) = client.zrange(broker._keys.leases, 0, -1, withscores=True)
            seen.add(ends)
            await asyncio.sleep(0.01)


@pytest.fixture
def make_broker(unique: Callable[[str], str]):
    return lambda url, lease=0.5: RedisBroker(url, key_prefix=unique("prefix"), lease=lease)


@pytest.mark.parametrize("way", ["url", "socket_url", "tls_url"])
async def test_it_renews_over_every_kind_of_connection(secured_redis: RedisServer, make_broker, queue, way):
    broker = make_broker(getattr(secured_redis, way)(2))
    with secured_redis.client(2) as client:
        process = psutil.Process(await held(broker, queue))
        await renewed(client, broker)
        assert secured_redis.password not in " ".join(process.cmdline())
        await broker.close()
    assert ends_within(30, process)


async def test_it_finds_the_new_master_by_itself(make_broker, queue):
    with RedisSentinel() as sentinel:
        broker = make_broker(f"{sentinel.url()}?master_name={sentinel.name}")
        await held(broker, queue)
        with sentinel.primary.client() as client:
            await renewed(client, broker)
            client.set("written after all that", "")  # WAIT is for what this connection wrote
            assert client.wait(1, 20_000) == 1
        await asyncio.to_thread(sentinel.failover)
        with sentinel.replica.client() as client:
            await renewed(client, broker)
        await broker.close()


async def test_it_renews_at_both_masters_until_the_former_is_demoted(make_broker, queue):
    """Workers are connected to either meanwhile, and each would take a lease that ended there for a death."""
    with RedisSentinel() as sentinel, sentinel.primary.client() as former, sentinel.replica.client() as new:
        broker = make_broker(f"{sentinel.url()}?master_name={sentinel.name}")
        await held(broker, queue)
        await renewed(former, broker)
        former.set("written after all that", "")  # WAIT is for what this connection wrote
        assert former.wait(1, 20_000) == 1
        new.replicaof("NO", "ONE")
        await asyncio.to_thread(sentinel.name_another, sentinel.replica)
        await renewed(new, broker)
        await renewed(former, broker)
        former.replicaof("127.0.0.1", 1)
        await renewed(new, broker)
        assert not broker._leases._renewer._trouble
        await broker.close()


async def test_it_is_started_again_when_it_was_killed(redis_server: RedisServer, make_broker, queue, caplog):
    broker = make_broker(redis_server.url())
    first = await held(broker, queue)
    os.kill(first, signal.SIGKILL)
    with redis_server.client() as client:
        await renewed(client, broker)
    assert broker._leases._renewer.pid not in (None, first)
    assert "starting another" in caplog.text
    await broker.close()


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
async def test_a_thread_does_it_where_no_process_can_be_started(
    redis_server: RedisServer, make_broker, queue, monkeypatch, caplog, program
):
    monkeypatch.setattr(sys, "executable", program)
    broker = make_broker(redis_server.url())
    await broker.publish(Envelope(body=b"{}"), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        with redis_server.client() as client:
            await renewed(client, broker)
        await delivery.receipt.ack()
    assert broker._leases._renewer.pid is None
    assert sum("by a thread" in record.message for record in caplog.records) == 1
    await broker.close()


async def test_trouble_is_told_once_and_its_end_too(own_redis: RedisServer, make_broker, queue, caplog):
    caplog.set_level(logging.WARNING, "celeriac.broker.redis")
    broker = make_broker(own_redis.url())
    await held(broker, queue)
    own_redis.kill()
    await asyncio.sleep(0.5)
    own_redis.start()
    with own_redis.client() as client:
        await renewed(client, broker)
    texts = [record.message for record in caplog.records if record.name == "celeriac.broker.redis"]
    assert len([text for text in texts if "could not be renewed" in text]) <= 2  # closed, then refused
    assert "renewed again" in texts[-1]
    await broker.close()


class TestEnding:
    """It ends with its parent, however that ends, and with nothing else."""

    def start(self, parent: int | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", renewal.__file__, str(parent or os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def test_with_its_orders(self):
        with self.start() as process:
            process.stdin.close()
            assert process.wait(1) == 0

    def test_with_its_parent_though_another_process_holds_the_orders_open(self):
        with self.start(parent=1) as process:
            assert process.wait(1) == 0

    def test_not_by_signals_that_go_to_a_whole_group(self):
        with self.start() as process:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.stdin.close()
            assert process.wait(1) == 0


def ends_of_all(client: redis.Redis, broker: RedisBroker) -> list[float]:
    return [ends for _, ends in client.zrange(broker._keys.leases, 0, -1, withscores=True)]


async def test_10_000_held_messages_are_renewed(redis_server: RedisServer, make_broker, queue):
    broker = make_broker(redis_server.url(), lease=4.0)
    await broker.publish_many([(Envelope(body=b"{}"), Route(queue, queue=queue))] * 10_000)
    async with broker.subscribe([queue]) as subscription:
        count = 0
        while count < 10_000:
            count += len(await subscription.take(1000))
        with redis_server.client() as client:
            ends = ends_of_all(client, broker)
            async with asyncio.timeout(60):
                while min(ends_of_all(client, broker)) <= max(ends):  # noqa: ASYNC110 - Redis tells nobody
                    await asyncio.sleep(0.02)
            assert len(ends_of_all(client, broker)) == 10_000
            assert client.zcount(broker._keys.index, time.time(), "+inf") == 10_000
    await broker.close()


async def test_what_was_reserved_but_never_arrived_comes_back(redis_server: RedisServer, make_broker, queue):
    """The answer is lost on its way, as when a connection breaks: the renewals must not hold it for ever."""
    broker = make_broker(redis_server.url())
    await broker.publish_many([(Envelope(body=b"{}"), Route(queue, queue=queue))] * 3)
    async with broker.subscribe([queue]) as subscription:
        (kept,) = await subscription.take(1)
        run, asked = broker._link.run, []

        async def lose(script, keys, arguments):
            answer = await run(script, keys, arguments)
            if arguments[0] == "2" and not asked:
                asked.append(answer)
                raise ConnectionResetError
            return answer

        broker._link.run = lose
        with pytest.raises(ConnectionResetError):
            await subscription.take(2)
        async with asyncio.timeout(5):
            taken = await subscription.take(2)
        assert {delivery.redelivered for delivery in taken} == {True}
        await kept.receipt.ack()
    await broker.close()
