"""Paused queues: nobody takes from them, and what waits there stays."""

import asyncio
from collections.abc import Callable

from celery import Celery

from celeriac import Celeriac
from tests.interop.celery_worker import CeleryWorker

PATIENCE = 60


async def test_a_running_worker_leaves_a_paused_queue_and_comes_back(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    queue = app.settings.default_queue
    async with app.worker() as worker:
        assert await (await add.send(1, 2)).wait(PATIENCE) == 3
        assert await app.control.pause(queue) == [worker.name]
        assert list(worker.queues) == []
        waiting = await add.send(2, 3)
        assert await app.connections().broker.depth(queue) == 1
        assert await app.control.paused() >= {queue}
        await app.control.resume(queue)
        assert await waiting.wait(PATIENCE) == 5


async def test_a_worker_that_starts_later_knows_of_a_pause(app: Celeriac, unique: Callable[[str], str]):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    queue, other = app.settings.default_queue, unique("other")
    await app.control.pause(queue)
    paused, open_ = await add.send(2, 3), await add.using(queue=other).send(3, 4)
    async with app.worker(queues=[queue, other]) as worker:
        assert await open_.wait(PATIENCE) == 7
        assert list(worker.queues) == [other]
        assert await app.connections().broker.depth(queue) == 1
        await app.control.resume(queue)
        assert await paused.wait(PATIENCE) == 5


async def test_a_worker_whose_only_queue_is_paused_waits(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    queue = app.settings.default_queue
    await app.control.pause(queue)
    waiting = await add.send(2, 3)
    async with app.worker() as worker:
        assert list(worker.queues) == []
        await app.control.resume(queue)
        assert await waiting.wait(PATIENCE) == 5


async def queues_of(app: Celeriac, node: str) -> list[str]:
    asked = await app.control.ask("active_queues", destination=[node], timeout=PATIENCE)
    return [queue["name"] for queue in asked.by_node[node]]


async def test_a_worker_of_celery_is_told(redis_url: str):
    with CeleryWorker(redis_url) as worker:
        async with Celeriac("pauser", broker=redis_url, backend=redis_url) as app:
            async with asyncio.timeout(PATIENCE):
                # It has a second to say from where it takes; on a busy machine it takes longer, and is not told.
                while worker.name not in await app.control.pause(worker.queue):  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.1)
                while worker.queue in await queues_of(app, worker.name):  # noqa: ASYNC110 - it answers before it does it
                    await asyncio.sleep(0.1)
            client = Celery("client", broker=redis_url, backend=redis_url, set_as_current=False)
            result = client.send_task("interop.add", [2, 3], queue=worker.queue)
            await app.control.resume(worker.queue)
            assert await asyncio.to_thread(result.get, timeout=PATIENCE) == 5
