"""The one subscribed connection of a broker: who listens shares it, and is told when it is cut."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import redis
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.pushes import Pushes, PushListener
from celeriac.servers.redis.url import parse_redis_url
from tests.redis.conftest import MakeBroker
from tests.redis.messages import message, route
from tests.servers import RedisServer

Heard = asyncio.Queue[tuple[bytes, object]]


def open_link(server: RedisServer, user: str = "") -> Link:
    url = server.url().replace("redis://", f"redis://{user}")
    target = parse_redis_url(url)
    return Link(target, ConnectionPool(target, 2.0), unavailable=BrokerUnavailable, refused=BrokerError)


@pytest.fixture
async def link(own_redis: RedisServer) -> AsyncIterator[Link]:
    link = open_link(own_redis)
    yield link
    await link.close()


@pytest.fixture
async def pushes(link: Link) -> AsyncIterator[Pushes]:
    pushes = Pushes(link)
    yield pushes
    await pushes.close()


def listening(client: redis.Redis) -> list[str]:
    """Return the connections that the server pushes to: those of protocol 3."""
    return [found["id"] for found in client.client_list() if found["resp"] == "3"]


def listener(
    *channels: str, patterns: tuple[str, ...] = ()
) -> tuple[PushListener, Heard, asyncio.Queue[CeleriacError]]:
    heard: Heard = asyncio.Queue()
    lost: asyncio.Queue[CeleriacError] = asyncio.Queue()
    return (
        PushListener(lambda *news: heard.put_nowait(news), lost.put_nowait, channels, patterns),
        heard,
        lost,
    )


async def test_each_hears_its_own_channels_over_one_connection(
    own_redis: RedisServer, link: Link, pushes: Pushes
) -> None:
    one, heard_by_one, _ = listener("a", "b")
    two, heard_by_two, _ = listener("b", patterns=("c/*",))
    await asyncio.gather(pushes.join(one), pushes.join(two))
    with own_redis.client() as client:
        assert len(client.client_list(_type="pubsub")) == 1
    for channel in ("a", "b", "c/d", "other"):
        await link.call("PUBLISH", channel, "x")
    async with asyncio.timeout(30):
        assert [await heard_by_one.get() for _ in range(2)] == [(b"a", b"x"), (b"b", b"x")]
        assert [await heard_by_two.get() for _ in range(2)] == [(b"b", b"x"), (b"c/d", b"x")]


async def test_what_nobody_wants_any_more_is_not_subscribed_to(
    own_redis: RedisServer, link: Link, pushes: Pushes
) -> None:
    one, _, _ = listener("a", "b")
    two, heard, _ = listener("b")
    await pushes.join(one)
    await pushes.join(two)
    await pushes.leave(one)
    await pushes.leave(one)
    assert await link.call("PUBLISH", "b", "x") == 1
    assert await asyncio.wait_for(heard.get(), 30) == (b"b", b"x")
    assert await link.call("PUBLISH", "a", "x") == 0
    await pushes.leave(two)
    with own_redis.client() as client:
        assert client.client_list(_type="pubsub") == []


async def test_everybody_is_told_of_a_cut_and_can_join_again(
    own_redis: RedisServer, link: Link, pushes: Pushes
) -> None:
    listeners = [listener("a"), listener("b")]
    for mine, _, _ in listeners:
        await pushes.join(mine)
    with own_redis.client() as client:
        client.client_kill_filter(_type="pubsub")
    for mine, _, lost in listeners:
        assert isinstance(await asyncio.wait_for(lost.get(), 30), BrokerUnavailable)
        await pushes.join(mine)
    assert await link.call("PUBLISH", "a", "again") == 1
    assert await asyncio.wait_for(listeners[0][1].get(), 30) == (b"a", b"again")


async def test_a_channel_that_is_refused_costs_the_others_nothing(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "narrow", "on", ">pw", "~*", "resetchannels", "&mine*", "+@all"
        )
    link = open_link(own_redis, "narrow:pw@")
    pushes = Pushes(link)
    mine, heard, lost = listener("mine")
    await pushes.join(mine)
    with pytest.raises(BrokerError, match="channel"):
        await pushes.join(listener("theirs")[0])
    await link.call("PUBLISH", "mine", "x")
    assert await asyncio.wait_for(heard.get(), 30) == (b"mine", b"x")
    assert lost.empty()
    await pushes.close()
    await link.close()


async def test_closing_tells_who_listens(link: Link, pushes: Pushes) -> None:
    mine, _, lost = listener("a")
    await pushes.join(mine)
    await pushes.close()
    assert isinstance(lost.get_nowait(), BrokerUnavailable)
    assert await link.call("PUBLISH", "a", "x") == 0


async def test_two_subscriptions_of_one_broker_wait_over_one_connection(
    own_redis: RedisServer, make_broker: MakeBroker, queue: str
) -> None:
    broker = make_broker(own_redis.url())
    async with broker.subscribe([queue]) as one, broker.subscribe([f"{queue}-2"]) as two:
        takes = [asyncio.create_task(subscription.take(1)) for subscription in (one, two)]
        with own_redis.client() as client:
            async with asyncio.timeout(30):
                while not listening(client):  # noqa: ASYNC110 - Redis tells nobody
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
            assert len(listening(client)) == 1
        for name, taking in zip((queue, f"{queue}-2"), takes, strict=True):
            await broker.publish(message(), route(name))
            (delivery,) = await asyncio.wait_for(taking, 7)
            await delivery.receipt.ack()
