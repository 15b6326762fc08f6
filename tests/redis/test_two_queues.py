"""One message in two queues of an exchange: each is run, and what follows from one run is not the other's."""

import asyncio

import redis
from celeriac import Celeriac, Context
from celeriac.wire.names import SEPARATOR
from tests.redis.conftest import MakeBroker


async def test_a_retry_comes_back_to_each_queue(
    make_broker: MakeBroker, redis_url: str, client: redis.Redis, prefix: str, queue: str
) -> None:
    exchange, names = f"{queue}.topic", [f"{queue}.a", f"{queue}.b"]
    for name in names:
        client.sadd(f"{prefix}_kombu.binding.{exchange}", SEPARATOR.join(("key", "", name)))
    app = Celeriac("topic", broker=make_broker(), backend=redis_url)
    ran: list[tuple[str, int]] = []
    done = asyncio.Event()

    async def note(ctx: Context) -> None:
        ran.append((ctx.queue or "", ctx.attempt))
        if len(ran) == 4:
            done.set()
        if ctx.attempt == 1:
            ctx.retry(countdown=0.05)

    task = app.register("topic.note", note)
    async with app, app.worker(queues=names):
        await task.using(exchange=exchange, routing_key="key").send()
        async with asyncio.timeout(60):
            await done.wait()
    assert sorted(ran) == [(name, attempt) for name in names for attempt in (1, 2)]
