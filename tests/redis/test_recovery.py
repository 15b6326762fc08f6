import asyncio
import json
import sys
import time

import pytest

from celeriac.errors import BrokerUnavailable, DeliveryLost
from celeriac.servers.redis.scripts import LAPSED
from celeriac.wire.frame import DELIVERIES_HEADER
from celeriac.wire.names import SEPARATOR
from tests.redis.messages import message, number_of, route
from tests.servers import LoggedProcess

HOLD_AND_HANG = """
import asyncio, sys
from celeriac.servers.redis.broker import RedisBroker

async def hold(url, prefix, queue):
    broker = RedisBroker(url, key_prefix=prefix, lease=2.0)
    async with broker.subscribe([queue]) as subscription:
        taken = await subscription.take(10)
        print(len(taken), flush=True)
        await asyncio.Event().wait()

asyncio.run(hold(*sys.argv[1:]))
"""


@pytest.fixture
def started():
    """Start a program; it is killed at the end, whatever the test finds."""
    processes: list[LoggedProcess] = []

    def start(command):
        processes.append(LoggedProcess(command))
        return processes[-1]

    yield start
    for process in processes:
        if process.running:
            process.kill()


async def test_a_killed_workers_messages_go_to_another_in_order(
    make_broker, prefix, client, redis_url, queue, started
):
    broker = make_broker(lease=2.0)
    await broker.publish_many([(message(n, priority=3), route(queue)) for n in range(5)])
    worker = started([sys.executable, "-c", HOLD_AND_HANG, redis_url, prefix, queue])
    await asyncio.to_thread(worker.wait_for, "5")
    async with broker.subscribe([queue]) as subscription:
        taking = asyncio.create_task(subscription.take(10))
        await renewed(client, prefix + "celeriac.leases", times=3)
        assert not taking.done(), "a living worker's messages were taken from it"
        worker.kill()
        async with asyncio.timeout(60):
            taken = await taking
        assert [number_of(delivery.envelope) for delivery in taken] == list(range(5))
        assert all(delivery.redelivered for delivery in taken)
        assert {delivery.envelope.headers[DELIVERIES_HEADER] for delivery in taken} == {1}
        await asyncio.gather(*(delivery.receipt.ack() for delivery in taken))


async def renewed(client, leases, times):
    """Wait until the leases were renewed so often; Redis tells nobody."""
    seen: set[float] = set()
    async with asyncio.timeout(60):
        while len(seen) <= times:
            seen.add(client.zrange(leases, 0, 0, withscores=True)[0][1])
            await asyncio.sleep(0.02)


async def test_a_busy_event_loop_keeps_its_messages(make_broker, queue):
    busy, peer = make_broker(lease=0.3), make_broker(lease=0.3)
    await busy.publish(message(), route(queue))
    async with busy.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        time.sleep(0.9)  # noqa: ASYNC251 - that is the point
        assert await peer._recovery.run() == 0
        await delivery.receipt.ack()


async def test_nobody_is_suspected_while_the_server_takes_no_writes(own_redis, make_broker, queue):
    holder, peer = (make_broker(own_redis.url(), lease=0.3) for _ in range(2))
    await holder.publish(message(), route(queue))
    async with holder.subscribe([queue]) as subscription:
        await subscription.take(1)
        await holder._leases.close()
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
        await asyncio.sleep(holder._leases.term)
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await peer._recovery.run()
            await asyncio.sleep(peer._leases.second_look)
        client.config_set("maxmemory", 0)
    assert await peer._recovery.run() == 0, "the holder had no time to say that it lives"
    await asyncio.sleep(peer._leases.second_look)
    assert await peer._recovery.run() == 1


async def test_who_wakes_up_after_its_lease_learns_so(make_broker, queue):
    sleeper, peer = make_broker(lease=0.2), make_broker(lease=0.2)
    await sleeper.publish(message(), route(queue))
    async with sleeper.subscribe([queue]) as subscription, peer.subscribe([queue]) as other:
        (delivery,) = await subscription.take(1)
        await sleeper._leases.close()
        (again,) = await other.take(1)
        with pytest.raises(DeliveryLost):
            await delivery.receipt.ack()
        await again.receipt.ack()


async def test_deliveries_are_counted_over_recoveries(make_broker, queue):
    broker = make_broker(lease=0.1)
    await broker.publish(message(), route(queue))
    async with broker.subscribe([queue]) as subscription:
        counts = []
        for _ in range(3):
            (delivery,) = await subscription.take(1)
            counts.append(delivery.envelope.headers.get(DELIVERIES_HEADER))
            await broker._leases.close()
        await (await subscription.take(1))[0].receipt.ack()
    assert counts == [None, 1, 2]


async def test_many_peers_restore_a_message_once(make_broker, prefix, client, queue):
    brokers = [make_broker(lease=0.1) for _ in range(5)]
    await brokers[0].publish_many([(message(n), route(queue)) for n in range(250)])
    async with brokers[0].subscribe([queue]) as subscription:
        await subscription.take(1000)
        await brokers[0]._leases.close()
    keys = [prefix + name for name in ("unacked", "unacked_index", "celeriac.leases", "celeriac.due")]
    async with asyncio.timeout(30):
        while not await brokers[0]._link.run(LAPSED, keys, (3600, 1)):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.02)

    async def recover() -> int:
        return sum(await asyncio.gather(*(broker._recovery.run() for broker in brokers)))

    assert await recover() == 0, "at the first look it may be an outage that just ended"
    await asyncio.sleep(brokers[0]._leases.second_look)
    assert await recover() == 250
    assert [number_of(envelope) for envelope in await brokers[0].peek(queue, 1000)][:100] == list(range(100))
    assert await brokers[0].depth(queue) == 250
    assert client.hlen(prefix + "unacked") == 0


@pytest.mark.parametrize("age", [50, 3700])
async def test_what_a_dead_celery_worker_held_goes_back_by_its_own_rule(
    make_broker, prefix, client, unique, age
):
    queue, exchange = unique("queue"), unique("exchange")
    broker = make_broker()
    await broker.publish(message(1, priority=3), route(queue))
    (raw,) = client.lrange(f"{prefix}{queue}{SEPARATOR}3", 0, -1)
    client.delete(f"{prefix}{queue}{SEPARATOR}3")
    client.sadd(f"{prefix}_kombu.binding.{exchange}", SEPARATOR.join(("key", "", queue)))
    for tag, exchange_of, key in (("direct", "", queue), ("named", exchange, "key")):
        client.hset(prefix + "unacked", tag, json.dumps([json.loads(raw), exchange_of, key]))
        client.zadd(prefix + "unacked_index", {tag: time.time() - age})
    restored = await broker._recovery.run()
    assert restored == (2 if age > 3600 else 0)
    assert client.llen(f"{prefix}{queue}{SEPARATOR}3") == restored
    assert client.hlen(prefix + "unacked") == 2 - restored


async def test_parked_messages_are_not_taken_for_lost(make_broker, queue):
    broker = make_broker(visibility_timeout=0.01, lease=0.1)
    await broker.publish(message(), route(queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        await delivery.receipt.park(time.time() + 3600)
    assert await broker._recovery.run() == 0


async def test_nobody_is_suspected_while_the_server_takes_no_connections(own_redis, make_broker, queue):
    holder, peer = (make_broker(own_redis.url(), lease=1.0) for _ in range(2))
    await holder.publish(message(), route(queue))
    with own_redis.client() as client:
        async with holder.subscribe([queue]) as subscription, peer.subscribe([queue]) as other:
            (held,) = await subscription.take(1)
            taking = asyncio.create_task(other.take(1))
            async with asyncio.timeout(60):
                # Until the peer waits and the holder's leases are renewed.
                while not (_asking("time", client) and (renewing := _asking("eval", client))):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            client.config_set("maxclients", client.info("clients")["connected_clients"] - 1)
            client.client_kill_filter(_id=renewing[0])
            done, _ = await asyncio.wait([taking], timeout=1.8)
            assert not done, "a living worker's message was taken from it"
            client.config_set("maxclients", 1000)
            done, _ = await asyncio.wait([taking], timeout=0.8)
            assert not done, "the holder had no time to say that it lives"
            await held.receipt.ack()


def _asking(command, client):
    """The ids of the connections over which this was asked last."""
    return [found["id"] for found in client.client_list() if found["cmd"] == command]
