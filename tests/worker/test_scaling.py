"""How many tasks a worker runs at once, by how many there are."""

from __future__ import annotations

import asyncio

from celeriac import Celeriac
from celeriac.testing.worker import running
from celeriac.worker.scaling import Scaling
from celeriac.worker.worker import Worker


class Scaled:
    """A worker's numbers."""

    def __init__(self, least: int, most: int) -> None:
        self.busy, self.size = 0, least
        self.scaling = Scaling(
            least, most, busy=lambda: self.busy, size=lambda: self.size, grow=self.grow, shrink=self.shrink
        )
        self.now = self.scaling._since

    async def grow(self, by: int) -> None:
        self.size += by

    async def shrink(self, by: int) -> None:
        self.size -= by

    async def look(self, busy: int, seconds: float = 1.0) -> int:
        self.busy = busy
        self.now += seconds
        await self.scaling.adjust(self.now)
        return self.size


async def test_it_grows_to_the_most_and_shrinks_to_what_was_needed() -> None:
    worker = Scaled(2, 8)
    assert [await worker.look(n) for n in (1, 2, 3, 4, 6, 8)] == [2, 3, 4, 6, 8, 8]
    # Idle for less than the keep: bursts come again.
    assert [await worker.look(0) for _ in range(5)] == [8] * 5
    assert await worker.look(5) == 8
    assert (
        await worker.look(0, 31.0) == 8
    )  # some were needed within the last half minute: eight, when it began
    assert await worker.look(0, 31.0) == 2


async def test_a_worker_grows_under_load() -> None:
    app = Celeriac("scaled", broker="memory://", backend="memory://")
    at_work: set[int] = set()
    all_at_work = asyncio.Event()

    @app.task
    async def hold(number: int) -> None:
        at_work.add(number)
        if len(at_work) == 3:
            all_at_work.set()
        await all_at_work.wait()

    async with app, Worker(app, concurrency=3, autoscale=1) as worker:
        assert worker.concurrency == 1
        results = [await hold.send(number) for number in range(3)]
        for result in results:
            await result.wait(timeout=60)
        assert worker.concurrency == 3


async def test_without_it_the_number_stays() -> None:
    app = Celeriac("fixed", broker="memory://", backend="memory://")
    async with running(app, concurrency=3):
        worker = Worker(app, concurrency=3)
        assert worker.concurrency == 3
