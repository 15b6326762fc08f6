"""What is too large for the server fails alone, and says how large it may be; what is only slow does not fail."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from celeriac import Celeriac, chain, group
from celeriac.errors import BackendError, BrokerError, EncodeError
from celeriac.wire.result import ResultRecord
from tests.redis.messages import message, number_of, route
from tests.servers import RedisServer
from tests.servers.proxy import Proxy

LIMIT = 1_048_576
TOO_LARGE = LIMIT + 100_000


@pytest.fixture
def strict_redis(own_redis: RedisServer) -> RedisServer:
    """A Redis that takes values of a megabyte at most."""
    with own_redis.client() as client:
        client.config_set("proto-max-bulk-len", LIMIT)
    return own_redis


@pytest.fixture
async def app(strict_redis: RedisServer, queue: str) -> AsyncIterator[Celeriac]:
    url = strict_redis.url()
    async with Celeriac("large", url, url, default_queue=queue, result_extended=True) as app:
        yield app


async def test_a_result_that_is_too_large_fails_its_task_and_no_other(app, caplog):
    gate = asyncio.Event()

    @app.task(name="make")
    async def make(size: int) -> str:
        await gate.wait()
        return "x" * size

    async with app.worker() as worker:
        small = [await make.send(10) for _ in range(30)]
        large = await make.send(TOO_LARGE)
        while worker.tally.received < 31:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        gate.set()
        assert await asyncio.gather(*(result.wait(60) for result in small)) == ["x" * 10] * 30
        with pytest.raises(EncodeError, match=rf"make.*too large: it has \d+ bytes.* {LIMIT} at most"):
            await large.wait(60)
    assert await app.connections().broker.dead.count() == 0
    assert f"make[{large.id}] failed: EncodeError" in caplog.text


async def test_a_failure_whose_arguments_are_too_large_is_recorded_without_them(strict_redis, app):
    @app.task(name="fail")
    async def fail(text: str) -> None:
        raise ValueError("in vain")

    with strict_redis.client() as client:
        client.config_set("proto-max-bulk-len", 2 * LIMIT)
        result = await fail.send("x" * (LIMIT + 1000))
        client.config_set("proto-max-bulk-len", LIMIT)
    async with app.worker():
        with pytest.raises(EncodeError, match="too large"):
            await result.wait(60)


async def test_what_would_follow_a_result_that_is_too_large_fails_too(app):
    ran = False

    @app.task(name="make")
    async def make(size: int) -> str:
        return "x" * size

    @app.task(name="after")
    async def after() -> None:
        nonlocal ran
        ran = True

    @app.task(name="take")
    async def take(text: str) -> int:
        return len(text)

    async with app.worker():
        for size, follower in ((TOO_LARGE, after.si()), (TOO_LARGE, take.s()), (LIMIT - 100_000, take.s())):
            result = await chain(make.s(size), follower).send()
            with pytest.raises(EncodeError, match="too large"):
                await result.wait(60)
    assert not ran


async def test_a_server_that_tells_no_limit_has_one_all_the_same(strict_redis, queue):
    with strict_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-config")
    url = strict_redis.url().replace("redis://", "redis://plain:pw@")
    async with Celeriac("large", url, url, default_queue=queue) as app:

        @app.task(name="make")
        async def make(size: int) -> str:
            return "x" * size

        async with app.worker():
            large, small = await make.send(TOO_LARGE), await make.send(1)
            with pytest.raises(EncodeError, match=r"too large: it has \d+ bytes"):
                await large.wait(60)
            assert await small.wait(60) == "x"


async def test_a_message_that_is_too_large_is_refused_alone(app):
    sends = [app.send_task("task", ["x" * (TOO_LARGE if n == 20 else 10)]) for n in range(40)]
    headers = app.send_task("task", headers={"large": "x" * TOO_LARGE})
    *sent, last = await asyncio.gather(*sends, headers, return_exceptions=True)
    assert [n for n, answer in enumerate(sent) if isinstance(answer, Exception)] == [20]
    for refused in (sent[20], last):
        assert isinstance(refused, EncodeError)
        assert "the message of task[" in str(refused)
        assert f"{LIMIT} at most (proto-max-bulk-len)" in str(refused)


async def test_nothing_is_sent_of_many_of_which_one_is_too_large(app, queue):
    calls = [app.call("task", ["x" * (TOO_LARGE if n == 3000 else 1)]) for n in range(3001)]
    with pytest.raises(EncodeError, match="the message of task"):
        await app.send_many(calls)
    with pytest.raises(EncodeError, match="the message of task"):
        await group([app.signature("task", args=(call.args[0],)) for call in calls[-3:]]).send()
    assert await app.connections().broker.depth(queue) == 0


async def test_of_a_refused_batch_each_is_tried(own_redis, make_broker, make_backend, unique):
    with own_redis.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "narrow", "on", ">pw", "resetkeys", "~fine*", "~_kombu*", "~celeriac*",
            "~unacked*", "&*", "+@all",
        )  # fmt: skip
    url = own_redis.url().replace("redis://", "redis://narrow:pw@")
    backend, broker = make_backend(url, key_prefix=""), make_broker(url, key_prefix="")
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "narrow", "~celery-task-meta-fine*")
    records = [ResultRecord(task_id=name, status="SUCCESS", result=1) for name in ("fine1", "bad", "fine2")]
    answers = await asyncio.gather(
        *(backend.store(backend.encode(record)) for record in records), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(None), BackendError, type(None)]
    assert [found is not None for found in await backend.load(["fine1", "fine2"])] == [True, True]
    queues = [route(name) for name in ("fine1", "bad", "fine2")]
    answers = await asyncio.gather(
        *(broker.publish(message(n), to) for n, to in enumerate(queues)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(None), BrokerError, type(None)]
    assert [number_of(found) for found in await broker.peek("fine2")] == [2]


async def test_an_upload_may_take_longer_than_the_timeout(
    own_redis, make_backend, make_broker, queue, caplog
):
    caplog.set_level(logging.WARNING)
    async with Proxy(own_redis.port, pace=1_200_000) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        backend, broker = make_backend(url, timeout=0.5), make_broker(url, timeout=0.5)
        record = ResultRecord(task_id="large", status="SUCCESS", result="x" * 1_200_000)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(
            backend.store(backend.encode(record)),
            broker.publish(message(body=b"x" * 1_100_000), route(queue)),
        )
        assert asyncio.get_running_loop().time() - began > 0.8
    assert len((await make_backend(own_redis.url()).load(["large"]))[0].result) == 1_200_000
    assert await make_broker(own_redis.url()).depth(queue) == 1


async def test_a_download_may_take_longer_than_the_timeout(own_redis, make_backend, make_broker, queue):
    """Else a large message would be taken for ever, and nobody could read a large result."""
    quick = make_backend(own_redis.url())
    await quick.store(quick.encode(ResultRecord(task_id="large", status="SUCCESS", result="x" * 1_200_000)))
    await make_broker(own_redis.url()).publish(message(body=b"x" * 900_000), route(queue))
    async with Proxy(own_redis.port, pace_back=1_200_000) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        backend, broker = make_backend(url, timeout=0.5), make_broker(url, timeout=0.5)
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(60), broker.subscribe([queue]) as subscription:
            [found], [delivery] = await asyncio.gather(backend.load(["large"]), subscription.take(1))
        assert asyncio.get_running_loop().time() - began > 0.8
    assert len(found.result) == 1_200_000
    assert len(delivery.envelope.body) == 900_000


async def test_many_messages_that_are_large_together_may_take_longer_than_the_timeout(
    own_redis, make_broker, queue
):
    async with Proxy(own_redis.port, pace=2_000_000) as proxy:
        broker = make_broker(f"redis://127.0.0.1:{proxy.port}", timeout=0.5)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(broker.publish(message(body=b"x" * 100_000), route(queue)) for _ in range(20)))
        assert asyncio.get_running_loop().time() - began > 0.8
    assert await make_broker(own_redis.url()).depth(queue) == 20
