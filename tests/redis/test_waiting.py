import asyncio
import time

import pytest

from celeriac.errors import BrokerUnavailable
from tests.redis.messages import message, number_of, route


async def until_idle(client, prefix):
    """Wait until nobody looks at this prefix's queues any more."""
    async with asyncio.timeout(60):
        before = -1
        while (now := client.info("stats")["total_commands_processed"]) - before > 1:
            before = now
            await asyncio.sleep(0.05)


async def test_an_idle_worker_asks_next_to_nothing(own_redis, make_broker, prefix, queue):
    broker = make_broker(own_redis.url())
    with own_redis.client() as client:
        async with broker.subscribe([queue]) as subscription:
            taking = asyncio.create_task(subscription.take(1))
            await until_idle(client, prefix)
            before, cpu = client.info("stats")["total_commands_processed"], time.process_time()
            await asyncio.sleep(1.5)
            assert client.info("stats")["total_commands_processed"] - before <= 2
            assert time.process_time() - cpu < 0.2
            waits = []
            for _ in range(5):
                client.lpush(prefix + queue, b"{}")
                began = time.monotonic()
                assert len(await taking) == 1
                waits.append(time.monotonic() - began)
                taking = asyncio.create_task(subscription.take(1))
                await until_idle(client, prefix)
            taking.cancel()
            assert min(waits) < 0.25, "a busy machine holds up some of them"


async def test_a_worker_without_queues_asks_next_to_nothing_while_something_is_parked(own_redis, make_broker):
    """So is one that pauses all its queues."""
    broker = make_broker(own_redis.url())
    with own_redis.client() as client:
        client.hset(broker._keys.unacked, "parked-a:0", b'[{"body": ""}, "", "elsewhere"]')
        client.zadd(broker._keys.due, {"parked-a:0": time.time() + 1000})
        async with broker.subscribe([]) as subscription:
            taking = asyncio.create_task(subscription.take(1))
            await asyncio.sleep(0.2)
            before = client.info("stats")["total_commands_processed"]
            await asyncio.sleep(1)
            assert client.info("stats")["total_commands_processed"] - before <= 10
            taking.cancel()


async def test_any_of_many_lists_wakes(broker, prefix, client, unique):
    queues = [unique("queue") for _ in range(10)]
    async with broker.subscribe(queues) as subscription:
        for queue in queues:
            for priority in (9, 0):
                taking = asyncio.create_task(subscription.take(1))
                await asyncio.sleep(0.005)
                await broker.publish(message(priority=priority), route(queue))
                async with asyncio.timeout(7):
                    (delivery,) = await taking
                assert (delivery.queue, delivery.envelope.priority) == (queue, priority)
                await delivery.receipt.ack()


async def test_nothing_is_missed_at_any_moment_of_arming(broker, make_broker, queue):
    """A publisher that writes as soon as the worker has what came before hits every gap there may be."""
    publisher = make_broker()
    async with broker.subscribe([queue]) as subscription:
        for number in range(200):
            publishing = asyncio.create_task(publisher.publish(message(number), route(queue)))
            async with asyncio.timeout(7):
                (delivery,) = await subscription.take(1)
            assert number_of(delivery.envelope) == number
            await asyncio.gather(publishing, delivery.receipt.ack())


async def test_a_message_that_comes_alone_costs_one_fetch_and_one_look(own_redis, make_broker, queue):
    broker, publisher = make_broker(own_redis.url()), make_broker(own_redis.url())
    with own_redis.client() as client:
        async with broker.subscribe([queue]) as subscription:
            taking = asyncio.create_task(subscription.take(2))
            await until_looks(client, 1)
            before = calls_of(client, "evalsha")
            for number in range(10):
                await publisher.publish(message(), route(queue))
                (delivery,) = await asyncio.wait_for(taking, 7)
                await delivery.receipt.ack()
                taking = asyncio.create_task(subscription.take(2))
                await until_looks(client, number + 2)
            assert calls_of(client, "evalsha") - before == 20  # a message is fetched, and acknowledged
            taking.cancel()


def calls_of(client, command):
    return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


async def until_looks(client, count):
    async with asyncio.timeout(60):
        while calls_of(client, "exists") < count:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.005)


async def test_stop_ends_a_wait_and_takes_nothing_more(broker, queue):
    async with broker.subscribe([queue]) as subscription:
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.05)
        await subscription.stop()
        assert await asyncio.wait_for(taking, 5) == []
        await broker.publish(message(), route(queue))
        assert await subscription.take(1) == []
    assert await broker.depth(queue) == 1


async def test_a_queue_added_while_waiting_is_waited_for(broker, unique):
    first, second = unique("first"), unique("second")
    async with broker.subscribe([first]) as subscription:
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.02)
        await subscription.add_queue(second)
        await broker.publish(message(), route(second))
        (delivery,) = await asyncio.wait_for(taking, 7)
        await delivery.receipt.ack()
        await subscription.drop_queue(second)
        await broker.publish_many([(message(), route(second)), (message(), route(first))])
        assert [delivery.queue for delivery in await subscription.take(5)] == [first]


async def test_a_lost_server_is_said_and_found_again(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url(), timeout=1.0)
    async with broker.subscribe([queue]) as subscription:
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.05)
        own_redis.kill()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(taking, 7)
        with pytest.raises(BrokerUnavailable):
            await subscription.take(1)
        own_redis.start()
        await broker.publish(message(), route(queue))
        (delivery,) = await asyncio.wait_for(subscription.take(1), 7)
        taking = asyncio.create_task(subscription.take(1))
        await delivery.receipt.ack()
        await asyncio.sleep(0.05)
        await broker.publish(message(), route(queue))
        await asyncio.wait_for(taking, 7)


async def test_a_cut_line_is_said_and_made_anew(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    with own_redis.client() as client:
        async with broker.subscribe([queue]) as subscription:
            taking = asyncio.create_task(subscription.take(1))
            await asyncio.sleep(0.05)
            for found in client.client_list():
                if found["resp"] == "3":
                    client.client_kill_filter(_id=found["id"])
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(taking, 7)
            taking = asyncio.create_task(subscription.take(1))
            await asyncio.sleep(0.05)
            await broker.publish(message(), route(queue))
            await asyncio.wait_for(taking, 7)


async def test_a_server_that_refuses_to_push_is_polled_and_the_log_says_so_once(
    own_redis, make_broker, queue, caplog
):
    with own_redis.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-client|tracking"
        )
    broker = make_broker(own_redis.url().replace("redis://", "redis://plain:pw@"))
    async with broker.subscribe([queue]) as subscription:
        for _ in range(2):
            taking = asyncio.create_task(subscription.take(1))
            await asyncio.sleep(0.1)
            await broker.publish(message(), route(queue))
            (delivery,) = await asyncio.wait_for(taking, 7)
            await delivery.receipt.ack()
    assert caplog.text.count("polled") == 1


async def test_leaving_and_closing_leave_no_connection(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    async with broker.subscribe([queue]) as subscription:
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.05)
        await broker.publish(message(), route(queue))
        await (await taking)[0].receipt.ack()
    await broker.close()
    await broker.close()
    with own_redis.client() as client:
        async with asyncio.timeout(7):
            while client.info("clients")["connected_clients"] > 1:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.01)
