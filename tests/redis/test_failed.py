"""The failed list in Redis: its keys expire, and what others put there harms nobody."""

import asyncio
from collections.abc import Callable

import pytest

from celeriac import Celeriac
from celeriac.contracts.set_aside import Cap, Failed
from celeriac.monitor.again import Refused, send_again
from celeriac.servers.redis.broker import RedisBroker
from celeriac.wire.envelope import Unreadable
from tests.redis.messages import message, route
from tests.servers import RedisServer


async def fail(broker: RedisBroker, queue: str, id: str) -> None:
    await broker.publish(message(1), route(queue))
    async with broker.subscribe([queue]) as subscription:
        [delivery] = await subscription.take(1)
        await delivery.receipt.fail(Failed(id, "no"))


async def test_both_keys_expire(redis_server: RedisServer, unique: Callable[[str], str], queue: str):
    prefix = unique("failed") + ":"
    broker = RedisBroker(redis_server.url(), key_prefix=prefix, failed=Cap(seconds=60))
    await fail(broker, queue, "a")
    with redis_server.client() as client:
        for key in ("celeriac.failed", "celeriac.failed.index"):
            assert 50 < client.ttl(prefix + key) <= 60
        client.zadd(f"{prefix}celeriac.failed.index", {"a": 1})  # it failed long ago
    await fail(broker, queue, "b")
    assert [letter.id for letter in await broker.failed.list()] == ["b"]
    assert not await broker.failed.find(["a"])
    await broker.close()


async def test_what_is_no_entry_is_told_and_not_sent(
    redis_server: RedisServer, unique: Callable[[str], str], queue: str
):
    prefix = unique("failed") + ":"
    async with Celeriac("looking", redis_server.url(), key_prefix=prefix, default_queue=queue) as app:
        entries = [b"", b"no JSON", b'{"queue": "q", "reason": "r"}\nno entry', b"\xff\n[]"]
        with redis_server.client() as client:
            for number, entry in enumerate(entries):
                client.hset(f"{prefix}celeriac.failed", f"bad-{number}", entry)
                client.zadd(f"{prefix}celeriac.failed.index", {f"bad-{number}": number})
            client.zadd(f"{prefix}celeriac.failed.index", {"without entry": 99})
        letters = await app.connections().broker.failed.list()
        assert [letter.id for letter in letters] == [f"bad-{number}" for number in range(len(entries))]
        assert all(isinstance(letter.envelope, Unreadable) for letter in letters)
        for letter in letters:
            with pytest.raises(Refused, match="cannot be read"):
                await send_again(app, letter)
        assert await app.connections().broker.depth(queue) == 0


async def test_a_key_of_another_type_is_set_aside(
    redis_server: RedisServer, unique: Callable[[str], str], queue: str
):
    prefix = unique("failed") + ":"
    url = redis_server.url()
    async with Celeriac("shop", url, url, key_prefix=prefix, default_queue=queue) as app:

        @app.task(name="fail")
        async def fail_once() -> None:
            raise ValueError("no")

        with redis_server.client() as client:
            client.set(f"{prefix}celeriac.failed", "a text")
        async with app.worker():
            results = [await fail_once.send() for _ in range(3)]
            answers = await asyncio.gather(*(one.wait(60) for one in results), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["no"] * 3
        found = await app.connections().broker.failed.find([one.id for one in results])
        assert len(found) == 3
