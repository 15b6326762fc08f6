"""Messages for later: parked where a celeriac worker brings them back, queued where none does."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta, timezone

import kombu
import pytest

from celeriac.client.revocations import Revocations
from celeriac.errors import BrokerError
from celeriac.testing.steps import envelope_of, take_all
from celeriac.wire.envelope import Route
from celeriac.wire.frame import DELIVERIES_HEADER, mark_redelivered
from celeriac.wire.names import SEPARATOR
from tests.redis.messages import message, number_of, route


def later(queue, seconds=3600.0):
    return Route(queue, queue=queue, due=time.time() + seconds)


async def test_it_is_queued_where_only_celery_may_serve_the_queue(make_broker, queue):
    broker = make_broker()
    await broker.publish(message(), later(queue))
    assert (await broker.depth(queue), await broker.schedule.count()) == (1, 0)


async def test_a_queue_is_served_while_a_subscription_holds_it(make_broker, prefix, client, queue):
    broker = make_broker(lease=10)
    async with broker.subscribe([queue]) as subscription:
        await broker.publish(message(1), later(queue))
        assert await broker.schedule.count() == 1
        served = dict(client.zrange(prefix + "celeriac.served", 0, -1, withscores=True))
        assert served == {queue.encode(): pytest.approx(time.time() + 20, abs=1)}
        assert 0 < client.ttl(prefix + "celeriac.served") <= 20
        await subscription.drop_queue(queue)
        await broker.publish(message(2), later(queue))
        assert await broker.depth(queue) == 1
        await subscription.add_queue(queue)
    await broker.publish(message(3), later(queue))
    assert (await broker.depth(queue), await broker.schedule.count()) == (2, 1)
    assert not client.exists(prefix + "celeriac.served")


async def test_a_worker_that_was_killed_serves_no_more(make_broker, prefix, client, queue):
    broker = make_broker()
    async with broker.subscribe([queue]):
        client.zadd(prefix + "celeriac.served", {queue: time.time() - 1})
        await broker.publish(message(), later(queue))
        assert await broker.depth(queue) == 1


async def test_it_keeps_priority_and_reaches_every_queue_of_its_exchange(make_broker, client, prefix, unique):
    exchange, queues = unique("exchange"), [unique("queue"), unique("queue")]
    broker = make_broker()
    for queue in queues:
        client.sadd(f"{prefix}_kombu.binding.{exchange}", SEPARATOR.join(("key", "", queue)))
    async with broker.subscribe(queues) as subscription:
        await broker.publish(message(7, priority=6), Route("key", exchange, due=time.time() + 0.2))
        assert await broker.schedule.count() == 2
        taken = []
        while len(taken) < 2:
            taken += await subscription.take(2)
        assert {delivery.queue for delivery in taken} == set(queues)
        assert [(number_of(one.envelope), one.envelope.priority) for one in taken] == [(7, 6)] * 2
        await asyncio.gather(*[one.receipt.requeue() for one in taken])
        assert client.llen(f"{prefix}{queues[0]}{SEPARATOR}6") == 1


async def test_what_refuses_one_does_not_refuse_the_others(make_broker, prefix, client, queue, unique):
    broker, broken = make_broker(), unique("broken")
    client.set(prefix + broken, "no list")
    sent = [broker.publish(message(number), later(name)) for number, name in enumerate((broken, queue))]
    refused, accepted = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(refused, BrokerError)
    assert accepted is None
    assert await broker.depth(queue) == 1


async def test_kombu_can_read_what_is_parked_and_lets_it_be_until_it_is_due(
    make_broker, prefix, client, queue
):
    broker = make_broker()
    async with broker.subscribe([queue]):
        to = later(queue)
        await broker.publish(message(5), to)
    ((tag, due),) = client.zrange(prefix + "unacked_index", 0, -1, withscores=True)
    frame, exchange, routing_key = json.loads(client.hget(prefix + "unacked", tag))
    assert (frame["headers"]["id"], exchange, routing_key) == ("5", "", queue)
    assert due == pytest.approx(to.due, abs=0.001)


async def test_deleted_ones_leave_nothing_behind(make_broker, prefix, client, queue):
    broker = make_broker()
    async with broker.subscribe([queue]):
        await broker.publish_many([(message(number), later(queue)) for number in range(2500)])
        parked = await broker.schedule.list(5000)
        assert await broker.schedule.delete([entry.id for entry in parked]) == 2500
    for name in ("unacked", "unacked_index", "celeriac.due"):
        assert not client.exists(prefix + name)


async def test_what_a_killed_worker_left_parked_is_listed_and_comes_in_order(make_broker, queue):
    first, second = make_broker(), make_broker()
    async with first.subscribe([queue]):
        to = later(queue, 0.3)
        await first.publish_many([(message(number), to) for number in range(300)])
    await first.close()
    async with second.subscribe([queue]) as subscription:
        taken = []
        while len(taken) < 300:
            taken += await subscription.take(100)
        assert to.due <= time.time() < to.due + 1
        assert [number_of(delivery.envelope) for delivery in taken] == list(range(300))


@pytest.mark.parametrize(
    ("header", "marked", "count"),
    [(None, False, 1), (None, True, 2), (0, True, 1), (3, True, 4), ("many", True, 2), (-1, False, 1)],
)
async def test_deliveries_by_whoever_counted(make_broker, prefix, client, queue, header, marked, count):
    """kombu marks what it restores and counts nothing."""
    broker = make_broker()
    await broker.publish(message(), route(queue))
    raw = client.lpop(prefix + queue)
    frame = json.loads(mark_redelivered(raw) if marked else raw)
    if header is not None:
        frame["headers"][DELIVERIES_HEADER] = header
    client.lpush(prefix + queue, json.dumps(frame))
    async with broker.subscribe([queue]) as subscription:
        for _ in range(2):
            (delivery,) = await subscription.take(1)
            assert (delivery.deliveries, delivery.redelivered) == (count, marked)
            await delivery.receipt.requeue()
            marked = True


async def test_revocations_end_with_their_keys(make_broker, prefix, client):
    broker = make_broker()
    await Revocations(broker.board, broker.schedule).add(["a"], roots=["b"], terminate=True, keep=100)
    await Revocations(broker.board, broker.schedule).add(["c"], keep=10)
    names = ("ids", "roots", "terminate", "revision")
    assert all(90 < client.ttl(f"{prefix}celeriac.revoked.{name}") <= 101 for name in names)


@pytest.fixture
def kombu_channel(redis_url, prefix):
    options = {"global_keyprefix": prefix, "visibility_timeout": 1}
    with kombu.Connection(redis_url, transport_options=options) as connection:
        yield connection.default_channel


async def test_what_kombu_restores_was_taken_once_before(make_broker, kombu_channel, queue):
    broker = make_broker()
    await broker.publish(message(), route(queue))
    assert kombu_channel.basic_get(queue).headers["id"] == "0"
    kombu_channel.qos.restore_unacked_once()
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
    assert (delivery.redelivered, delivery.deliveries) == (True, 2)


async def test_kombu_restores_what_is_old_and_nothing_that_is_parked(
    make_broker, kombu_channel, prefix, client, queue
):
    broker = make_broker()
    async with broker.subscribe([queue]):
        await broker.publish(message(1), later(queue))
        await broker.publish(message(2), route(queue))
    frame = json.loads(client.lpop(prefix + queue))
    client.hset(prefix + "unacked", "old", json.dumps([frame, "", queue]))
    client.zadd(prefix + "unacked_index", {"old": time.time() - 10})
    kombu_channel.qos.restore_visible(interval=1)
    assert [number_of(envelope) for envelope in await broker.peek(queue)] == [2]
    assert [number_of(entry.envelope) for entry in await broker.schedule.list()] == [1]


def with_eta(number, eta, **headers):
    return message(
        number, headers={"task": "add", "id": str(number), "root_id": str(number), "eta": eta} | headers
    )


async def test_what_is_queued_for_later_stands_in_nobodys_way(make_broker, client, prefix, queue):
    """As a Celery client queues it, and ours does while no worker serves the queue."""
    broker = make_broker()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    etas = {
        number: (tomorrow + timedelta(seconds=number * 7919.123456)).astimezone(
            timezone(timedelta(minutes=zone))
        )
        for number, zone in enumerate([0, 330, -210, 60, -720] * 500)
    }
    late = [(with_eta(number, eta.isoformat()), route(queue)) for number, eta in etas.items()]
    await broker.publish_many([*late, (message(9999), route(queue))])
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await take_all(subscription, 1)
        assert number_of(envelope_of(delivery)) == 9999
        await delivery.receipt.ack()
    assert await broker.depth(queue) == 0
    parked = {number_of(entry.envelope): entry.due for entry in await broker.schedule.list(len(etas))}
    assert parked == {number: pytest.approx(eta.timestamp(), abs=1e-3) for number, eta in etas.items()}
    assert client.zcard(f"{prefix}celeriac.leases") == 0


@pytest.mark.parametrize(
    "eta",
    [
        "",
        "soon",
        "2999-01-01",
        "2999-01-01T00:00:00",
        "2999-01-01T00:00:00Z",
        "2001-02-03T04:05:06+00:00",
        None,
        7,
    ],
)
async def test_an_eta_that_is_over_or_in_doubt_is_for_the_worker(make_broker, queue, eta):
    broker = make_broker()
    await broker.publish(with_eta(1, eta, other={"eta": "2999-01-01T00:00:00+00:00"}), route(queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await take_all(subscription, 1)
        assert number_of(envelope_of(delivery)) == 1
        await delivery.receipt.ack()


async def test_what_is_for_later_and_revoked_or_expired_is_for_the_worker_now(make_broker, queue):
    broker = make_broker()
    later = "2999-01-01T00:00:00+00:00"
    await Revocations(broker.board, broker.schedule).add(["1"], roots=["2"])
    await broker.publish_many(
        [
            (
                with_eta(number, later, expires="2001-02-03T04:05:06+00:00" if number == 3 else None),
                route(queue),
            )
            for number in (1, 2, 3)
        ]
    )
    async with broker.subscribe([queue]) as subscription:
        deliveries = await take_all(subscription, 3)
        assert [number_of(envelope_of(delivery)) for delivery in deliveries] == [1, 2, 3]
        for delivery in deliveries:
            await delivery.receipt.ack()
