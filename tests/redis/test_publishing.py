import asyncio
import json

import pytest

from celeriac import Celeriac, chain
from celeriac.errors import BrokerError, BrokerUnavailable, EncodeError
from celeriac.servers.redis.results import RedisBackend
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Route
from celeriac.wire.names import SEPARATOR
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy
from celeriac.worker.copies import Copies
from tests.redis.messages import message, number_of, route
from tests.servers.redis import free_port


async def test_a_queue_is_declared_as_kombu_declares_it(broker, prefix, client, queue):
    await broker.publish(message(), route(queue))
    member = f"{queue}{SEPARATOR}{SEPARATOR}{queue}".encode()
    assert client.smembers(f"{prefix}_kombu.binding.{queue}") == {member}
    assert client.smembers(f"{prefix}_kombu.binding_permanent.{queue}") == {member}
    assert await broker.queues() == [queue]


async def test_a_frame_says_where_it_was_published(broker, prefix, client, queue):
    await broker.publish(message(), route(queue))
    await broker.publish(message(), route(queue))
    frames = [json.loads(raw) for raw in client.lrange(prefix + queue, 0, -1)]
    assert [frame["properties"]["delivery_info"] for frame in frames] == [
        {"exchange": "", "routing_key": queue}
    ] * 2
    assert len({frame["properties"]["delivery_tag"] for frame in frames}) == 2


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (5, 3), (9, 9), (200, 9)])
async def test_priority_chooses_the_list(broker, prefix, client, queue, priority, step):
    await broker.publish(message(priority=priority), route(queue))
    assert client.llen(prefix + queue + (f"{SEPARATOR}{step}" if step else "")) == 1
    assert await broker.depth(queue) == 1


async def test_peek_and_purge_know_every_priority(broker, queue):
    await broker.publish_many([(message(n, priority=p), route(queue)) for n, p in enumerate([9, 0, 3, 0])])
    assert [number_of(envelope) for envelope in await broker.peek(queue)] == [1, 3, 2, 0]
    assert [number_of(envelope) for envelope in await broker.peek(queue, limit=3)] == [1, 3, 2]
    assert await broker.purge(queue) == 4
    assert await broker.depth(queue) == 0


async def test_many_messages_take_few_round_trips(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.ping()
    with own_redis.client() as client:
        client.config_resetstat()
        await broker.publish_many([(message(n), route(queue)) for n in range(10_000)])
        calls = {name: facts["calls"] for name, facts in client.info("commandstats").items()}
    assert await broker.depth(queue) == 10_000
    assert calls["cmdstat_lpush"] <= 10
    assert [number_of(envelope) for envelope in await broker.peek(queue, 3)] == [0, 1, 2]


async def test_the_key_of_what_was_published_once_ends(broker, prefix, client, queue):
    await broker.publish_once("the-key", [(message(), route(queue))])
    (key,) = client.keys(f"{prefix}celeriac.once.the-key*")
    assert ONCE - 100 < client.ttl(key) <= ONCE
    await broker.forget_once("the-key")
    assert 0 < client.ttl(key) <= ONCE_SETTLED


async def test_what_is_known_of_a_copy_ends(redis_url, prefix, client):
    backend = RedisBackend(redis_url, Codecs(), key_prefix=prefix)
    copies = Copies(backend.board.marks)
    await copies.is_first(Copy("the-key", "a", "1"))
    (key,) = client.keys(f"{prefix}celeriac.mark.copies.the-key")
    assert ONCE - 100 < client.ttl(key) <= ONCE
    await copies.forget("the-key")
    await copies.is_first(Copy("the-key", "b", "2"))
    assert 0 < client.ttl(key) <= ONCE_SETTLED
    await copies.forget("another")
    await copies.is_first(Copy("another", "a", "1"))
    assert 0 < client.ttl(f"{prefix}celeriac.mark.copies.another") <= ONCE_SETTLED
    await backend.close()


@pytest.mark.parametrize(("results", "expected"), [("on another server", 2), ("on the broker's server", 0)])
async def test_a_worker_lets_go_of_the_keys_of_a_chain(own_redis, redis_url, queue, results, expected):
    """Where one step lands an ending, nothing has to be recognised as sent before."""
    backend = redis_url if results == "on another server" else own_redis.url()
    app = Celeriac("keys", broker=own_redis.url(), backend=backend, default_queue=queue)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    with own_redis.client() as client:
        async with app:
            async with app.worker():
                assert await (await chain(add.s(0, 1), add.s(2), add.s(3)).send()).wait(timeout=60) == 6
            keys = client.keys("celeriac.once.*")
            assert len(keys) == expected
            assert all(0 < client.ttl(key) <= ONCE_SETTLED for key in keys)


async def test_a_batch_larger_than_a_command_may_be(broker, queue):
    body = b"x" * 3_000_000
    await broker.publish_many([(message(n, body=body), route(queue)) for n in range(7)])
    assert [number_of(envelope) for envelope in await broker.peek(queue)] == list(range(7))


async def test_concurrent_calls_share_round_trips(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.publish(message(), route(queue))
    with own_redis.client() as client:
        client.config_resetstat()
        await asyncio.gather(*(broker.publish(message(n), route(queue)) for n in range(500)))
        assert client.info("commandstats")["cmdstat_lpush"]["calls"] <= 2


async def test_a_named_exchange_leads_where_it_is_bound(broker, prefix, client, unique):
    exchange, direct, topic, other = unique("exchange"), unique("direct"), unique("topic"), unique("other")
    client.sadd(
        f"{prefix}_kombu.binding.{exchange}",
        SEPARATOR.join(("feed.eu", "", direct)),
        SEPARATOR.join(("feed.#", r"^feed\..*?$", topic)),
        SEPARATOR.join(("news", "", other)),
        "nonsense",
    )
    await broker.publish(message(priority=3), Route(routing_key="feed.eu", exchange=exchange))
    assert [await broker.depth(queue) for queue in (direct, topic, other)] == [1, 1, 0]


async def test_a_named_exchange_is_declared_with_its_queue(broker, unique):
    exchange, queue = unique("exchange"), unique("queue")
    await broker.publish(message(), Route(routing_key="key", exchange=exchange, queue=queue))
    assert await broker.depth(queue) == 1


async def test_what_cannot_be_routed_is_an_error_of_its_own(broker, unique, queue):
    lost = broker.publish(message(), Route(routing_key="nowhere", exchange=unique("exchange")))
    refused, _ = await asyncio.gather(lost, broker.publish(message(), route(queue)), return_exceptions=True)
    assert isinstance(refused, BrokerError)
    assert "nowhere" in str(refused)
    assert await broker.depth(queue) == 1


async def test_a_key_of_another_type_is_an_error_of_its_own(broker, prefix, client, queue, unique):
    taken = unique("taken")
    client.set(prefix + taken, "text")
    refused, fine = await asyncio.gather(
        broker.publish(message(), route(taken)),
        broker.publish(message(), route(queue)),
        return_exceptions=True,
    )
    assert isinstance(refused, BrokerError)
    assert not isinstance(refused, BrokerUnavailable)
    assert "another queue name" in str(refused)
    assert fine is None


async def test_a_name_that_is_no_text_is_refused_alone(broker, queue):
    refused, fine = await asyncio.gather(
        broker.publish(message(), route("lone \ud800")),
        broker.publish(message(), route(queue)),
        return_exceptions=True,
    )
    assert isinstance(refused, EncodeError)
    assert fine is None
    with pytest.raises(EncodeError, match="key"):
        await broker.publish_many([(message(), route(queue)), (message(), route("lone \ud800"))])
    assert await broker.depth(queue) == 1


async def test_a_dead_broker_is_said_twice_within_the_timeout(make_broker, queue):
    broker = make_broker(f"redis://127.0.0.1:{free_port()}", timeout=0.5)
    for _ in range(2):
        async with asyncio.timeout(5.0):
            with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1"):
                await broker.publish(message(), route(queue))


async def test_a_hung_broker_is_said_within_the_timeout_of_each_call(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url(), timeout=1.5)
    await broker.publish(message(), route(queue))
    own_redis.pause()
    try:
        loop = asyncio.get_running_loop()

        async def publish_later(delay: float) -> float:
            await asyncio.sleep(delay)
            began = loop.time()
            with pytest.raises(BrokerUnavailable, match=r"1\.5 s"):
                await broker.publish(message(), route(queue))
            return loop.time() - began

        waits = await asyncio.gather(*(publish_later(delay) for delay in (0, 0.4, 1.0)))
    finally:
        own_redis.resume()
    assert max(waits) < 2.8, "one after the other they take 1.5, 2.6 and 3.5 seconds"


async def test_a_broker_that_came_back_empty_is_declared_to_anew(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.publish(message(), route(queue))
    with own_redis.client() as client:
        client.flushall()
    own_redis.restart()
    for _ in range(2):
        try:
            await broker.publish(message(), route(queue))
            break
        except BrokerUnavailable:
            continue
    await broker.publish(message(), route(queue))
    assert await broker.depth(queue) >= 1


async def test_passwords_sockets_and_tls(secured_redis, make_broker, queue):
    for url in (secured_redis.url(3), secured_redis.socket_url(3), secured_redis.tls_url(3)):
        await make_broker(url).publish(message(), route(queue))
    assert await make_broker(secured_redis.url(3)).depth(queue) == 3
    assert await make_broker(secured_redis.url(4)).depth(queue) == 0
    with pytest.raises(BrokerError, match="password") as caught:
        await make_broker(secured_redis.url().replace("pass%2Fword%401", "wrong")).ping()
    assert not isinstance(caught.value, BrokerUnavailable)


async def test_sentinels_lead_to_the_master(redis_sentinel, make_broker, queue):
    broker = make_broker(f"{redis_sentinel.url()}?master_name={redis_sentinel.name}")
    await broker.publish(message(), route(queue))
    async with broker.subscribe([queue]) as subscription:
        (delivery,) = await subscription.take(1)
        await delivery.receipt.ack()


async def test_a_broker_serves_one_event_loop(broker):
    await broker.ping()
    with pytest.raises(BrokerError, match="event loop"):
        await asyncio.to_thread(asyncio.run, broker.ping())


async def test_a_login_that_was_good_once_may_be_so_again(own_redis, make_broker, queue):
    broker = make_broker(own_redis.url())
    await broker.publish(message(), route(queue))
    with own_redis.client() as client:
        client.config_set("requirepass", "changed")
        client.client_kill_filter(_type="normal", skipme=True)
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await broker.publish(message(), route(queue))
        client.config_set("requirepass", "")
    await broker.publish(message(), route(queue))
    assert await broker.depth(queue) == 2
