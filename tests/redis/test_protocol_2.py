"""A server, or a proxy before it, that knows no HELLO: what it pushes comes over connections of protocol 2."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from celeriac.errors import BackendError
from celeriac.wire.result import ResultRecord
from tests.redis.conftest import MakeBackend, MakeBroker
from tests.redis.messages import message, number_of, route
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def old_redis() -> Iterator[RedisServer]:
    with RedisServer(arguments=("--rename-command", "HELLO", "")) as server:
        yield server


def idle(server: RedisServer, command: str) -> list[str]:
    """Return the connections that gave this command last."""
    with server.client() as client:
        return [found["id"] for found in client.client_list() if found["cmd"] == command]


def cut(server: RedisServer, command: str) -> None:
    with server.client() as client:
        for number in idle(server, command):
            client.client_kill_filter(_id=number)


async def until_waiting(server: RedisServer) -> None:
    async with asyncio.timeout(60):
        while not idle(server, "time"):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)


async def test_nothing_is_missed_at_any_moment_of_arming(
    old_redis: RedisServer, make_broker: MakeBroker, queue: str
) -> None:
    broker, publisher = make_broker(old_redis.url()), make_broker(old_redis.url())
    async with broker.subscribe([queue]) as subscription:
        for number in range(100):
            publishing = asyncio.create_task(publisher.publish(message(number), route(queue)))
            async with asyncio.timeout(5):
                (delivery,) = await subscription.take(1)
            assert number_of(delivery.envelope) == number
            await asyncio.gather(publishing, delivery.receipt.ack())


async def test_two_subscriptions_wait_over_two_connections(
    old_redis: RedisServer, make_broker: MakeBroker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker(old_redis.url())
    queues = [queue, f"{queue}-2"]
    async with broker.subscribe(queues[:1]) as one, broker.subscribe(queues[1:]) as two:
        takes = [asyncio.create_task(subscription.take(1)) for subscription in (one, two)]
        await until_waiting(old_redis)
        await asyncio.sleep(0.1)
        assert (len(idle(old_redis, "time")), len(idle(old_redis, "subscribe"))) == (1, 1)
        for name, taking in zip(queues, takes, strict=True):
            await broker.publish(message(), route(name))
            (delivery,) = await asyncio.wait_for(taking, 5)
            await delivery.receipt.ack()
    assert "polled" not in caplog.text


async def test_a_look_whose_idle_connection_was_closed_goes_on_over_another(
    old_redis: RedisServer, make_broker: MakeBroker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker(old_redis.url())
    async with broker.subscribe([queue]) as subscription:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                taking = asyncio.create_task(subscription.take(1))
                await until_waiting(old_redis)
                await asyncio.sleep(0.05)
                cut(old_redis, "time")
                await subscription.add_queue(f"{queue}-2")  # looks again
                await broker.publish(message(), route(queue))
                (delivery,) = await asyncio.wait_for(taking, 5)
                await delivery.receipt.ack()
                await subscription.drop_queue(f"{queue}-2")
    assert caplog.text == ""


async def test_a_result_is_waited_for_whether_it_is_there_or_not(
    old_redis: RedisServer, make_backend: MakeBackend
) -> None:
    backend, writer = make_backend(old_redis.url()), make_backend(old_redis.url())
    for task_id in ("a", "b"):
        record = ResultRecord(task_id=task_id, status="SUCCESS", result=None)
        async with asyncio.timeout(5), backend.follow([task_id]) as records:
            await writer.store(writer.encode(record))
            assert [found.task_id async for found in records] == [task_id]
        async with asyncio.timeout(5), backend.follow([task_id]) as records:
            assert [found.task_id async for found in records] == [task_id]
    assert len(idle(old_redis, "unsubscribe") + idle(old_redis, "subscribe")) == 1


async def test_who_may_not_subscribe_to_results_is_told(
    old_redis: RedisServer, make_backend: MakeBackend
) -> None:
    with old_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all")
    backend = make_backend(old_redis.url().replace("//", "//deaf:pw@"))
    with pytest.raises(BackendError, match="NOPERM"):
        async with asyncio.timeout(5), backend.follow(["a"]):
            pass
