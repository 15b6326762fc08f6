import asyncio
import json
import time

import pytest

from celeriac.errors import BrokerUnavailable, DeliveryLost
from celeriac.wire.envelope import Unreadable
from tests.redis.messages import message, number_of, route


async def test_an_entry_is_what_kombu_would_have_written(broker, prefix, client, queue):
    await broker.publish(message(), route(queue))
    (raw,) = client.lrange(prefix + queue, 0, -1)
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        ((tag, entry),) = client.hgetall(prefix + "unacked").items()
        assert json.loads(entry) == [json.loads(raw), "", queue]
        # In kombu's index it is in the future, so that no visibility timeout, however short, ends it.
        assert client.zscore(prefix + "unacked_index", tag) == pytest.approx(time.time() + 30, abs=5)
        assert client.zscore(prefix + "celeriac.leases", tag) == pytest.approx(time.time() + 13.5, abs=5)
        await delivery.receipt.ack()
    assert client.keys(f"{prefix}*unacked*") == []
    assert client.keys(f"{prefix}celeriac*") == []


async def test_what_is_no_object_still_makes_a_readable_entry(broker, prefix, client, queue):
    client.lpush(prefix + queue, b"not json")
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        (entry,) = client.hvals(prefix + "unacked")
        assert json.loads(entry) == ["not json", "", queue]
        assert delivery.envelope == Unreadable(b"not json", delivery.envelope.reason)
        await delivery.receipt.bury("unreadable")
    (letter,) = await broker.dead.list()
    assert letter.envelope.raw == b"not json"


async def test_bytes_that_are_no_text_survive_parking_recovery_and_burial(make_broker, prefix, client, queue):
    awkward = [
        b"\xff\xfe\x00\x80",
        b'{"body": "\xff"}',
        b'"quoted\\"\x01',
        b"",
        b"{",
        b'{", "", "x"}',
    ]
    broker = make_broker(lease=0.2)
    client.lpush(prefix + queue, *awkward)
    async with broker.subscribe([queue]) as subscription:
        for delivery in await take_all(subscription, len(awkward)):
            await delivery.receipt.park(0.0)
        parked = await take_all(subscription, len(awkward))
        assert sorted(delivery.receipt.raw for delivery in parked) == sorted(awkward)
        await broker._leases.close()
        lapsed = await take_all(subscription, len(awkward))
        assert sorted(delivery.receipt.raw for delivery in lapsed) == sorted(awkward)
        for delivery in lapsed:
            await delivery.receipt.bury("awkward")
    assert await broker.dead.count() == len(awkward)


async def test_lower_steps_first_and_each_in_order(broker, queue):
    await broker.publish_many([(message(n, priority=p), route(queue)) for n, p in enumerate([9, 0, 3, 0, 6])])
    async with broker.subscribe([queue]) as subscription:
        taken = await subscription.take(10)
        assert [number_of(delivery.envelope) for delivery in taken] == [1, 3, 2, 4, 0]
        await asyncio.gather(*(delivery.receipt.requeue() for delivery in taken))
        again = await subscription.take(10)
        assert [number_of(delivery.envelope) for delivery in again] == [1, 3, 2, 4, 0]
        assert all(delivery.redelivered for delivery in again)
        await asyncio.gather(*(delivery.receipt.ack() for delivery in again))


async def test_queues_take_turns(broker, unique):
    first, second = unique("first"), unique("second")
    await broker.publish_many([(message(n), route(queue)) for n in range(20) for queue in (first, second)])
    async with broker.subscribe([first, second]) as subscription:
        seen = [(await subscription.take(1))[0].queue for _ in range(10)]
    assert {seen.count(first), seen.count(second)} == {5}


async def test_queue_names_of_every_kind(broker, unique):
    names = [unique('qu"ote\\'), unique("ünï-日本-🦆"), unique("with space"), unique('x, "", "y')]
    await broker.publish_many([(message(n), route(name)) for n, name in enumerate(names)])
    async with broker.subscribe(names) as subscription:
        for delivery in await take_all(subscription, len(names)):
            assert names[number_of(delivery.envelope)] == delivery.queue
            await delivery.receipt.park(0.0)
        for delivery in await take_all(subscription, len(names)):
            assert names[number_of(delivery.envelope)] == delivery.queue
            await delivery.receipt.ack()


async def test_a_large_batch_is_taken_and_acknowledged_whole(broker, prefix, client, queue):
    await broker.publish_many([(message(n), route(queue)) for n in range(2500)])
    async with broker.subscribe([queue]) as subscription:
        taken = await take_all(subscription, 2500)
        assert [number_of(delivery.envelope) for delivery in taken] == list(range(2500))
        assert client.hlen(prefix + "unacked") == 2500
        await asyncio.gather(*(delivery.receipt.ack() for delivery in taken))
        assert client.hlen(prefix + "unacked") == 0


async def test_a_batch_of_large_messages_is_cut(broker, queue):
    await broker.publish_many([(message(n, body=b"x" * 300_000), route(queue)) for n in range(60)])
    async with broker.subscribe([queue]) as subscription:
        assert len(await subscription.take(1000)) == 41  # below 16 MiB of frames


async def test_a_settled_delivery_is_lost_to_every_further_call(broker, queue):
    await broker.publish_many([(message(n), route(queue)) for n in range(3)])
    async with broker.subscribe([queue]) as subscription:
        acked, parked, buried = await subscription.take(3)
        await acked.receipt.ack()
        await parked.receipt.park(time.time() + 3600)
        await buried.receipt.bury("reason")
        for delivery in (acked, parked, buried):
            for again in (
                delivery.receipt.ack(),
                delivery.receipt.requeue(),
                delivery.receipt.park(0.0),
                delivery.receipt.bury(""),
            ):
                with pytest.raises(DeliveryLost):
                    await again
    assert await broker.depth(queue) == 0


async def test_one_lost_delivery_does_not_disturb_the_batch(broker, queue):
    await broker.publish_many([(message(n), route(queue)) for n in range(5)])
    async with broker.subscribe([queue]) as subscription:
        taken = await subscription.take(5)
        await taken[2].receipt.ack()
        answers = await asyncio.gather(*(d.receipt.ack() for d in taken), return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        type(None),
        type(None),
        DeliveryLost,
        type(None),
        type(None),
    ]


async def test_a_parked_message_waits_in_redis_and_comes_back_on_time(broker, prefix, client, queue):
    await broker.publish(message(priority=3), route(queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        due = time.time() + 0.4
        await delivery.receipt.park(due)
        assert client.zrange(prefix + "unacked_index", 0, -1, withscores=True)[0][1] == pytest.approx(due)
        assert client.exists(prefix + "celeriac.leases") == 0
        (again,) = await subscription.take(1)
        assert due <= time.time() < due + 0.25
        assert not again.redelivered
        assert client.exists(prefix + "celeriac.due") == 0
        await again.receipt.ack()


async def test_a_parked_message_outlives_its_worker_and_is_anybodys(make_broker, queue):
    first, second = make_broker(), make_broker()
    await first.publish(message(), route(queue))
    async with first.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        async with second.subscribe([queue]) as other:
            waiting = asyncio.create_task(other.take(1))
            await delivery.receipt.park(time.time() + 0.3)
            await subscription.stop()
            (again,) = await waiting
            await again.receipt.ack()


async def test_parked_messages_come_back_in_order_of_their_times(broker, queue):
    await broker.publish_many([(message(n), route(queue)) for n in range(300)])
    async with broker.subscribe([queue]) as subscription:
        taken = await subscription.take(300)
        now = time.time()
        await asyncio.gather(*(d.receipt.park(now - number_of(d.envelope) / 1000) for d in taken))
        numbers = [number_of(d.envelope) for d in await take_all(subscription, 300)]
    # At most 200 come back in one step, the earliest of them first.
    assert numbers[:200] == list(range(299, 99, -1))
    assert sorted(numbers) == list(range(300))


async def test_a_queue_of_another_type_does_not_stop_the_others(
    broker, prefix, client, unique, queue, caplog
):
    odd = unique("odd")
    client.set(prefix + odd, "text")
    async with broker.subscribe([odd, queue]) as subscription:
        await broker.publish(message(), route(queue))
        (delivery,) = await subscription.take(5)
        await delivery.receipt.ack()
    assert odd in caplog.text


async def test_dead_letters_are_kept_until_retried_or_deleted(broker, queue):
    await broker.publish_many([(message(n, priority=6), route(queue)) for n in range(3)])
    async with broker.subscribe([queue]) as subscription:
        for delivery in await subscription.take(3):
            await delivery.receipt.bury(f"reason {number_of(delivery.envelope)} \udc80")
        letters = await broker.dead.list()
        assert [letter.reason[:8] for letter in letters] == ["reason 0", "reason 1", "reason 2"]
        assert [letter.id for letter in await broker.dead.list(limit=1, offset=1)] == [letters[1].id]
        assert letters[0].died_at == pytest.approx(time.time(), abs=5)
        assert await broker.dead.delete([letters[0].id, "unknown"]) == 1
        assert await broker.dead.retry([letters[1].id, letters[1].id, "unknown"]) == 1
        assert await broker.dead.count() == 1
        (delivery,) = await subscription.take(1)
        assert (number_of(delivery.envelope), delivery.envelope.priority) == (1, 6)
        await delivery.receipt.ack()


async def test_a_server_without_memory_refuses_and_loses_nothing(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.publish_many([(message(n), route(queue)) for n in range(10)])
    async with broker.subscribe([queue]) as subscription:
        (first,) = await subscription.take(1)
        with own_redis.client() as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await broker.publish(message(), route(queue))
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await first.receipt.requeue()
            await first.receipt.ack()
            assert len(await subscription.take(5)) == 5
            client.config_set("maxmemory", 0)
            assert client.hlen(broker._keys.unacked) == 5
    assert await broker.depth(queue) == 4


async def test_scripts_are_taught_anew_after_a_restart(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.publish_many([(message(n), route(queue)) for n in range(2)])
    async with broker.subscribe([queue]) as subscription:
        (first,) = await subscription.take(1)
        with own_redis.client() as client:
            client.script_flush()
        await first.receipt.ack()
        (second,) = await subscription.take(1)
        await second.receipt.ack()


async def test_kombu_restores_our_entry_to_its_list(broker, prefix, client, queue, redis_url):
    import kombu

    await broker.publish(message(7), route(queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        (tag,) = client.hkeys(prefix + "unacked")
        options = {"global_keyprefix": prefix}
        with (
            kombu.Connection(redis_url, transport_options=options) as connection,
            connection.channel() as channel,
        ):
            channel.qos.restore_by_tag(tag.decode())
        (again,) = await subscription.take(1)
        assert number_of(again.envelope) == 7
        assert again.redelivered
        with pytest.raises(DeliveryLost):
            await delivery.receipt.ack()
        await again.receipt.ack()
    assert client.keys(f"{prefix}celeriac*") == []


async def take_all(subscription, count):
    taken = []
    while len(taken) < count:
        taken += await subscription.take(1000)
    return taken


def looks(client):
    """Return how many scripts the server has run."""
    return client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


async def test_a_queue_that_cannot_be_read_is_looked_at_now_and_then(broker, client, prefix, queue):
    client.set(prefix + queue, "no list")
    async with broker.subscribe([queue]) as subscription:
        before = looks(client)
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.wait([taking], timeout=0.5)
        assert 0 < looks(client) - before < 10
        client.delete(prefix + queue)
        await broker.publish(message(), route(queue))
        async with asyncio.timeout(60):
            (delivery,) = await taking
        await delivery.receipt.ack()
