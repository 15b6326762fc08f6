"""Queues and slots of a worker that runs."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import BrokerUnavailable, ConfigError
from tests.servers import RedisServer
from tests.worker import process_tasks as tasks


@pytest.fixture(params=["memory", "sqlite", "redis", "rabbitmq"])
async def app(
    request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]
) -> AsyncIterator[Celeriac]:
    """An app on every broker, with a queue of its own; results of RabbitMQ's tasks are in a file."""
    name, file = unique("changing"), f"sqlite:///{tmp_path}/tasks.db"
    places = {"memory": ("memory://",) * 2, "sqlite": (file, file)}.get(request.param)
    if request.param == "redis":
        places = (request.getfixturevalue("redis_url"),) * 2
    if places is None:
        places = (request.getfixturevalue("rabbit_url"), file)
    async with Celeriac("changing", *places, default_queue=name, key_prefix=f"{name}:") as app:
        yield app


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.01)


class Crowd:
    """A task whose runs are counted while they last."""

    def __init__(self, app: Celeriac) -> None:
        self.running = self.most = self.ended = 0
        self.gate = asyncio.Event()
        self.task = app.task(name="crowd")(self.run)

    async def run(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        self.ended += 1


async def test_a_queue_that_is_added_is_taken_from(app: Celeriac, queue: str) -> None:
    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async with app.worker() as worker:
        early = await double.using(queue=queue).send(1)
        assert await (await double.send(2)).wait(60) == 4
        assert not (await early.info()).ready
        await worker.add_queue(queue)
        await worker.add_queue(queue)
        assert await early.wait(60) == 2
        assert await (await double.using(queue=queue).send(3)).wait(60) == 6
        assert worker.queues == (app.settings.default_queue, queue)


async def test_a_queue_that_is_dropped_keeps_its_messages(app: Celeriac, queue: str) -> None:
    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async with app.worker(queues=[app.settings.default_queue, queue]) as worker:
        assert await (await double.using(queue=queue).send(1)).wait(60) == 2
        await worker.drop_queue(queue)
        await worker.drop_queue(f"{queue}.never")
        left = await double.using(queue=queue).send(2)
        for number in range(20):
            assert await (await double.send(number)).wait(60) == 2 * number
        assert not (await left.info()).ready
        assert await app.connections().broker.depth(queue) == 1
        await worker.drop_queue(app.settings.default_queue)
        assert worker.queues == ()
        await worker.add_queue(queue)
        assert await left.wait(60) == 4


async def test_slots_that_are_added_are_filled_at_once(app: Celeriac) -> None:
    crowd = Crowd(app)
    async with app.worker(concurrency=1) as worker:
        for _ in range(8):
            await crowd.task.send()
        await until(lambda: crowd.running == 1)
        assert await worker.grow() == 2
        await until(lambda: crowd.running == 2)
        assert await worker.grow(3) == worker.concurrency == 5
        await until(lambda: crowd.running == 5)
        crowd.gate.set()
        await until(lambda: crowd.ended == 8)
    assert crowd.most == 5


async def test_slots_that_are_taken_away_are_not_used_again(app: Celeriac) -> None:
    crowd = Crowd(app)
    async with app.worker(concurrency=6) as worker:
        for _ in range(6):
            await crowd.task.send()
        await until(lambda: crowd.running == 6)
        assert await worker.shrink(2) == 4
        crowd.gate.set()
        await until(lambda: crowd.ended == 6)
        await asyncio.sleep(0.1)
        # The worker waits for messages, four at once, when it is told that two are enough.
        assert await worker.shrink(2) == 2
        crowd.gate.clear()
        crowd.most = 0
        await app.send_many([crowd.task.call() for _ in range(12)])
        await until(lambda: crowd.running == 2)
        await asyncio.sleep(0.2)
        assert crowd.most == 2
        assert await worker.shrink(7) == worker.concurrency == 1
        crowd.gate.set()
        await until(lambda: crowd.ended == 18)
    assert crowd.most == 2


async def test_what_has_no_slot_yet_goes_back_when_the_worker_stops(app: Celeriac) -> None:
    crowd = Crowd(app)
    async with app.worker(concurrency=4, grace=0.2) as worker:
        assert await worker.shrink(3) == 1
        await app.send_many([crowd.task.call() for _ in range(4)])
        await until(lambda: crowd.running == 1)
    crowd.gate.set()
    async with app.worker():
        await until(lambda: crowd.ended == 4)


async def test_threads_follow_the_slots(tmp_path: Path, queue: str) -> None:
    url = f"sqlite:///{tmp_path}/tasks.db"
    together, alone = threading.Barrier(3), []

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("celeriac-task-")]

    before = len(threads())
    async with Celeriac("changing", url, url, default_queue=queue) as app:

        @app.task
        def meet() -> int:
            return together.wait(60)

        @app.task
        def count() -> None:
            alone.append(1)
            time.sleep(0.01)
            assert len(alone) == 1
            alone.pop()

        async with app.worker(concurrency=1) as worker:
            meeting = [await meet.send() for _ in range(3)]
            await worker.grow(2)
            assert sorted([await result.wait(60) for result in meeting]) == [0, 1, 2]
            await worker.shrink(2)
            counting = [await count.send() for _ in range(10)]
            for result in counting:
                await result.wait(60)
            await until(lambda: len(threads()) - before == 1)


async def test_processes_follow_the_slots(tmp_path: Path) -> None:
    """Run in a process each; what is surplus afterwards ends."""
    places = [tmp_path / str(number) for number in range(3)]
    for place in places:
        place.mkdir()
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=1) as worker:

        async def meet(place: Path, count: int) -> set[int]:
            met = [await tasks.meet.send(str(place), count) for _ in range(count)]
            return {await result.wait(60) for result in met}

        meeting = asyncio.create_task(meet(places[0], 2))
        await until(lambda: list(places[0].iterdir()))
        await worker.grow()
        pids = await meeting
        assert len(pids) == 2
        await worker.shrink()
        await until(lambda: sum(map(is_alive, pids)) == 1)
        (left,) = filter(is_alive, pids)
        assert await meet(places[1], 1) == {left}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


async def test_a_worker_in_a_thread_of_its_own_is_changed_from_any_loop(redis_url: str, queue: str) -> None:
    app = Celeriac("changing", redis_url, redis_url, default_queue=queue, key_prefix=f"{queue}:")
    worker = app.worker(concurrency=1)

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    def work() -> int:
        worker.start()
        asyncio.run(worker.add_queue(f"{queue}.more"))
        assert asyncio.run(worker.grow()) == 2
        asyncio.run(worker.drop_queue(queue))
        value = double.using(queue=f"{queue}.more").delay(4).get(timeout=60)
        worker.stop()
        return value

    assert await asyncio.to_thread(work) == 8
    assert worker.queues == (f"{queue}.more",)


async def test_what_cannot_be_changed_is_refused_and_nothing_has_changed(
    own_redis: RedisServer, queue: str
) -> None:
    url = own_redis.url()
    async with Celeriac("changing", url, url, default_queue=queue, publish_timeout=1.0) as app:
        worker = app.worker(concurrency=2)
        for change in (worker.add_queue("x"), worker.drop_queue("x"), worker.grow(), worker.shrink()):
            with pytest.raises(ConfigError, match="does not run"):
                await change
        async with worker:
            for change in (worker.add_queue(""), worker.add_queue(3), worker.grow(0), worker.shrink(-1)):  # type: ignore[arg-type]
                with pytest.raises(ConfigError):
                    await change
            own_redis.pause()
            try:
                with pytest.raises(BrokerUnavailable):
                    await worker.add_queue("x")
            finally:
                own_redis.resume()
            assert (worker.queues, worker.concurrency) == ((queue,), 2)


async def test_what_was_reserved_of_a_dropped_queue_goes_back(app: Celeriac, queue: str) -> None:
    crowd = Crowd(app)
    async with app.worker(concurrency=1, queues=[app.settings.default_queue, queue]) as worker:
        await crowd.task.send()
        await until(lambda: crowd.running == 1)
        for _ in range(5):
            await crowd.task.using(queue=queue).send()
        await asyncio.sleep(0.3)
        await worker.drop_queue(queue)
        crowd.gate.set()
        await until(lambda: crowd.ended == 1)
        async with asyncio.timeout(60):
            while await app.connections().broker.depth(queue) < 5:  # noqa: ASYNC110 - a broker tells nobody
                await asyncio.sleep(0.05)
        assert crowd.ended == 1
