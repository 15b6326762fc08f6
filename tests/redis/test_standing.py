"""Where messages come one by one, an idle worker waits for the next one in the take itself: see ``standing``."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest

from celeriac.clock import SystemClock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.standing import StandingTake
from celeriac.servers.redis.url import parse_redis_url
from tests.redis.messages import message, number_of, route
from tests.servers.proxy import Proxy


class Ahead(SystemClock):
    """A clock that is ahead of the server's."""

    def now(self) -> float:
        return super().now() + 0.5


async def until_stands(client):
    """Return once a connection waits at the server."""
    async with asyncio.timeout(30):
        while not client.info("clients")["blocked_clients"]:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.002)


async def one_by_one(broker, subscription, queue, count, **fields):
    """Publish so many messages, each to a take that waits for it."""
    for number in range(count):
        taking = asyncio.create_task(subscription.take(4))
        await asyncio.sleep(0.005)
        await broker.publish(message(number, **fields), route(queue))
        (delivery,) = await taking
        assert number_of(delivery.envelope) == number
        await delivery.receipt.ack()


async def begin_to_stand(client, broker, subscription, queue, **fields):
    """Return a take that waits at the server: two messages came before, one by one."""
    subscription.idle = True
    async with asyncio.timeout(30):
        while True:
            await one_by_one(broker, subscription, queue, 3, **fields)
            taking = asyncio.create_task(subscription.take(4))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await until_stands(client)
                    return taking
            taking.cancel()  # a busy machine took more than a second between two messages


@asynccontextmanager
async def standing(server, broker, queues, **fields):
    """A subscription, and its take that stands at the first of these queues."""
    with server.client() as client:
        async with broker.subscribe(queues) as subscription:
            taking = await begin_to_stand(client, broker, subscription, queues[0], **fields)
            try:
                yield client, subscription, taking
            finally:
                taking.cancel()


async def test_a_message_is_taken_in_the_trip_that_waits_for_it(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, subscription, taking):
        before = client.info("commandstats")
        for number in range(20):
            await broker.publish(message(number), route(queue))
            (delivery,) = await taking
            assert number_of(delivery.envelope) == number
            await delivery.receipt.ack()
            taking = asyncio.create_task(subscription.take(4))
            await until_stands(client)
        after = client.info("commandstats")
        taking.cancel()
    looks = after["cmdstat_exists"]["calls"] - before["cmdstat_exists"]["calls"]
    assert looks <= 20 + 4, "besides the script's own, the other lists are looked at only now and then"


async def test_what_waits_ends_with_the_first_of_many(own_redis, make_broker, queue):
    """A burst is taken as far as there are slots, in its order."""
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (_, subscription, taking):
        await broker.publish_many([(message(number), route(queue)) for number in range(6)])
        deliveries = await taking
        while len(deliveries) < 6:
            deliveries += await subscription.take(6 - len(deliveries))
        assert [number_of(delivery.envelope) for delivery in deliveries] == list(range(6))


async def test_a_worker_that_runs_something_does_not_stand(own_redis, make_broker, queue):
    """Where several workers wait, the message would be this one's, however busy it is."""
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, subscription, taking):
        await broker.publish(message(), route(queue))
        await taking
        subscription.idle = False
        stands = client.info("commandstats")["cmdstat_blmove"]["calls"]
        for _ in range(5):
            taking = asyncio.create_task(subscription.take(4))
            await asyncio.sleep(0.02)
            assert not client.info("clients")["blocked_clients"]
            await broker.publish(message(), route(queue))
            await taking
        assert client.info("commandstats")["cmdstat_blmove"]["calls"] == stands


async def test_it_stands_for_a_moment_only(own_redis, make_broker, queue):
    """A worker whose machine was cut off must not be given messages for long."""
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, _, taking):
        async with asyncio.timeout(30):
            while client.info("clients")["blocked_clients"]:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.02)
        before = client.info("commandstats")["cmdstat_blmove"]["calls"]
        await asyncio.sleep(1.5)
        assert client.info("commandstats")["cmdstat_blmove"]["calls"] == before
        await broker.publish(message(7), route(queue))
        (delivery,) = await taking
        assert number_of(delivery.envelope) == 7


@pytest.mark.parametrize("fields", [{}, {"priority": 9}], ids=["queue", "priority"])
async def test_another_list_ends_the_wait(own_redis, make_broker, unique, fields):
    first, second = unique("first"), unique("second")
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [first, second]) as (_, _, taking):
        began = time.monotonic()
        await broker.publish(message(5, **fields), route(first if fields else second))
        (delivery,) = await taking
        assert number_of(delivery.envelope) == 5
        assert time.monotonic() - began < 0.4, "the wait would have lasted for a second"


async def test_a_parked_message_ends_the_wait_when_it_is_due(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, _, taking):
        lists = broker._keys
        seconds, micros = client.time()
        entry = b'[{"body": "", "headers": {"id": "5"}, "properties": {}}, "", "%s"]' % queue.encode()
        client.hset(lists.unacked, "parked-a:0", entry)
        client.zadd(lists.due, {"parked-a:0": seconds + micros / 1e6 + 0.3})
        began = time.monotonic()
        (delivery,) = await taking
        assert number_of(delivery.envelope) == 5
        assert time.monotonic() - began < 0.7


async def test_stop_ends_the_wait_and_leaves_nothing_reserved(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, subscription, taking):
        began = time.monotonic()
        await subscription.stop()
        assert await taking == []
        assert time.monotonic() - began < 0.4
        await broker.publish(message(), route(queue))
        assert await broker.depth(queue) == 1
        assert not client.hlen(broker._keys.unacked)


async def test_letting_go_does_not_wait_for_the_wait(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (_, subscription, _):
        began = time.monotonic()
        await subscription.let_go()
        assert time.monotonic() - began < 0.4


async def test_a_stop_at_each_moment_ends_the_wait(own_redis, make_broker, queue):
    """The command that ends a wait may reach the server before that which waits."""
    broker = make_broker(own_redis.url())
    for rounds in range(12):
        with own_redis.client() as client:
            async with broker.subscribe([queue]) as subscription:
                taking = await begin_to_stand(client, broker, subscription, queue)
                await broker.publish(message(), route(queue))
                (delivery,) = await taking
                taking = asyncio.create_task(subscription.take(4))
                await delivery.receipt.ack()
                for _ in range(rounds):
                    await asyncio.sleep(0)
                began = time.monotonic()
                await subscription.stop()
                assert await taking == []
                assert time.monotonic() - began < 0.4


async def test_letting_go_at_each_moment_does_not_wait_for_the_wait(own_redis, make_broker, queue):
    """A fetch that has yet to come to its wait does not begin it."""
    broker = make_broker(own_redis.url())
    with own_redis.client() as client:
        async with broker.subscribe([queue]) as subscription:
            for rounds in range(16):
                taking = await begin_to_stand(client, broker, subscription, queue)
                await broker.publish(message(), route(queue))
                (delivery,) = await taking
                subscription._look_at = (
                    0.0  # it is time to look for dead workers, which comes before the wait
                )
                taking = asyncio.create_task(subscription.take(4))
                await delivery.receipt.ack()
                for _ in range(rounds):
                    await asyncio.sleep(0)
                began = time.monotonic()
                await subscription.let_go()
                assert time.monotonic() - began < 0.4
                await broker.publish(message(), route(queue))
                (delivery,) = await taking
                await delivery.receipt.ack()


async def test_a_stop_while_the_server_holds_writers_back_does_not_crash_it(own_redis, make_broker, queue):
    """Many servers end in a panic when they are to unblock a client that ``CLIENT PAUSE`` holds back."""
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, subscription, taking):
        started = client.info("server")["run_id"]
        client.client_pause(1000, all=False)
        await subscription.stop()
        assert await taking == []
        assert client.info("server")["run_id"] == started


async def test_a_queue_of_one_list_is_waited_for_so(own_redis, make_broker, queue):
    """No other list is to be looked at then."""
    broker = make_broker(own_redis.url(), priority_steps=[0])
    async with standing(own_redis, broker, [queue]) as (_, _, taking):
        await broker.publish(message(3), route(queue))
        (delivery,) = await taking
        assert number_of(delivery.envelope) == 3


async def test_the_time_of_the_wait_hides_no_difference_of_clocks(own_redis, make_broker, queue):
    """A worker whose clock is ahead would drop what expires soon."""
    broker = make_broker(own_redis.url(), clock=Ahead())
    async with standing(own_redis, broker, [queue]) as (_, subscription, taking):
        await asyncio.sleep(0.7)
        await broker.publish(message(), route(queue))
        await taking
        assert subscription.ahead == pytest.approx(-0.5, abs=0.2)


@pytest.mark.parametrize("seconds", [0.0003, 0.001])
async def test_the_shortest_wait_ends(own_redis, seconds):
    """A server takes 0 for a wait without end."""
    pool = ConnectionPool(parse_redis_url(own_redis.url()), 5.0)
    link = Link(pool.target, pool, unavailable=BrokerUnavailable, refused=BrokerError)
    began = time.monotonic()
    answer = await StandingTake(link).run("nothing", seconds, Script("return 7"), (), ())
    assert (answer, time.monotonic() - began < 2) == (7, True)
    await link.close()


async def test_a_connection_without_a_number_does_not_wait_so(own_redis, make_broker, queue):
    """Nothing could end the wait when a message comes in another list."""
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-client|id")
        broker = make_broker(own_redis.url().replace("redis://", "redis://plain:pw@"))
        async with broker.subscribe([queue]) as subscription:
            subscription.idle = True
            await one_by_one(broker, subscription, queue, 6)
        assert "cmdstat_blmove" not in client.info("commandstats")


async def test_a_cut_line_is_said_and_the_message_comes(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (client, subscription, taking):
        (found,) = [each for each in client.client_list() if "b" in each["flags"]]
        client.client_kill_filter(_id=found["id"])
        with pytest.raises(BrokerUnavailable):
            await taking
        taking = asyncio.create_task(subscription.take(1))
        await broker.publish(message(9), route(queue))
        (delivery,) = await taking
        assert number_of(delivery.envelope) == 9


async def test_what_was_given_to_a_worker_that_is_cut_off_comes_back(own_redis, make_broker, queue):
    other = make_broker(own_redis.url(), lease=1.0)
    async with Proxy(own_redis.port) as line:
        broker = make_broker(f"redis://127.0.0.1:{line.port}/0", lease=1.0, timeout=1.0)
        async with standing(own_redis, broker, [queue]) as (client, _, taking):
            line.freeze()
            await other.publish(message(3), route(queue))
            assert client.zcard(broker._keys.leases) == 1, "it is reserved before anybody asks"
            with pytest.raises(BrokerUnavailable):
                await taking
            async with other.subscribe([queue]) as subscription, asyncio.timeout(20):
                (delivery,) = await subscription.take(1)
                assert number_of(delivery.envelope) == 3
                assert (delivery.redelivered, delivery.deliveries) == (True, 2)
                await delivery.receipt.ack()
            line.thaw()


@pytest.mark.parametrize("right", ["-blmove", "-client|unblock", "-client|id"])
async def test_who_may_not_wait_so_waits_as_before(own_redis, make_broker, queue, right):
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", right)
        broker = make_broker(own_redis.url().replace("redis://", "redis://plain:pw@"))
        async with broker.subscribe([queue]) as subscription:
            subscription.idle = True
            await one_by_one(broker, subscription, queue, 10)
            taking = asyncio.create_task(subscription.take(4))
            began = time.monotonic()
            await subscription.stop()
            assert await taking == []
            assert time.monotonic() - began < 3


async def test_large_messages_are_not_waited_for_so(own_redis, make_broker, queue):
    """The command that waits answers with the message, which the script then sends a second time."""
    broker = make_broker(own_redis.url())
    with own_redis.client() as client:
        async with broker.subscribe([queue]) as subscription:
            subscription.idle = True
            await one_by_one(broker, subscription, queue, 6, body=b"x" * 20_000)
            assert "cmdstat_blmove" not in client.info("commandstats")


async def test_a_celery_worker_that_waits_takes_what_it_is_given(own_redis, make_broker, queue):
    """One that waits by ``BRPOP`` is served, too: what waits here changes nothing."""
    broker = make_broker(own_redis.url())
    async with standing(own_redis, broker, [queue]) as (_, _, taking):
        key = broker._keys.lists_of(queue).keys[0]
        with own_redis.client() as peer:
            popping = asyncio.create_task(asyncio.to_thread(peer.brpop, [key], 20))
            async with asyncio.timeout(20):
                with own_redis.client() as client:
                    while client.info("clients")["blocked_clients"] < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            await broker.publish_many([(message(number), route(queue)) for number in range(2)])
            _, raw = await popping
            deliveries = await taking
            assert len(deliveries) == 1
            assert raw
            assert await broker.depth(queue) == 0
