"""Servers and proxies close connections on which nothing happens: nobody who waits may go deaf by that."""

import asyncio

from celeriac import Celeriac
from celeriac.wire.result import SUCCESS, ResultRecord
from tests.redis.messages import message, route
from tests.servers import RedisServer

RENEWAL, WAITING = "eval", "time"
"""What the process that renews leases asks, and what a worker asks last before it waits."""


async def cut(server: RedisServer, command: str = "") -> None:
    """Cut all that is not subscribed, as proxies cut what they saw nothing on; or those who gave this command last."""
    with server.client() as client:
        own = client.client_id()
        for found in client.client_list(_type="normal"):
            if int(found["id"]) != own and command in ("", found["cmd"]):
                client.client_kill_filter(_id=found["id"])


async def test_a_worker_whose_idle_connections_were_closed_takes_what_comes(own_redis, queue):
    url = own_redis.url()
    async with Celeriac("idle", url, url, default_queue=queue, lease=2.0) as app:

        @app.task(name="double")
        async def double(number: int) -> int:
            return 2 * number

        async with app.worker() as worker:
            await worker.ready()
            for number in range(2):
                await asyncio.sleep(0.2)
                await cut(own_redis, WAITING)
                async with Celeriac("sender", url, url, default_queue=queue) as sender:
                    assert await (await sender.send_task("double", [number])).wait(8) == 2 * number


async def test_renewals_over_a_connection_that_was_closed_go_on_over_another(
    own_redis, make_broker, queue, caplog
):
    worker, peer = (make_broker(own_redis.url(), lease=1.0) for _ in range(2))
    await worker.publish(message(), route(queue))
    async with worker.subscribe([queue]) as subscription, peer.subscribe([queue]) as other:
        (held,) = await subscription.take(1)
        taking = asyncio.create_task(other.take(1))
        for _ in range(4):
            await asyncio.sleep(0.4)
            await cut(own_redis, RENEWAL)
        assert not taking.done()
        assert "could not be renewed" not in caplog.text
        await held.receipt.requeue()
        (again,) = await asyncio.wait_for(taking, 8)
        await again.receipt.ack()


async def test_a_wait_for_a_result_outlives_every_connection_of_its_process(own_redis, make_backend):
    reader, writer = make_backend(own_redis.url()), make_backend(own_redis.url())

    async def status() -> str:
        async with reader.follow(["task"]) as records:
            return [record.status async for record in records][-1]

    waiting = asyncio.create_task(status())
    await asyncio.sleep(0.2)
    with own_redis.client() as client:
        client.client_kill_filter(_type="pubsub")
    await cut(own_redis)
    await writer.store(writer.encode(ResultRecord(task_id="task", status=SUCCESS, result=1)))
    assert await asyncio.wait_for(waiting, 8) == SUCCESS
