"""Memory stays flat, however many tasks and results go through."""

import asyncio
import gc
import logging
from collections.abc import Callable

import psutil
import pytest

from celeriac import Celeriac, as_completed

TASKS, BATCH = 200_000, 10_000
ALLOWED = 12 * 1024 * 1024


@pytest.mark.timeout(240)
async def test_200_000_tasks_and_results_leave_memory_as_it_was(
    redis_url: str, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
):
    name = unique("flat")
    caplog.set_level(logging.CRITICAL, "celeriac.worker")  # pytest keeps every record
    app = Celeriac(name, broker=redis_url, backend=redis_url, default_queue=name, result_expires=30)

    @app.task(name=name)
    async def add(x: int, y: int) -> int:
        if x % 50 == 0:
            raise ValueError(x)
        return x + y

    async def one_batch(start: int) -> None:
        results = await app.send_many([add.call(start + i, 1) for i in range(BATCH)])
        # One wait for all of them is half as dear as one for each, so these come now and then.
        if start // BATCH % 4:
            results = [result async for result in as_completed(results)]
        values = await asyncio.gather(*(result.wait(60) for result in results), return_exceptions=True)
        assert sum(isinstance(value, ValueError) for value in values) == BATCH // 50
        assert sum(isinstance(value, int) for value in values) == BATCH - BATCH // 50

    def resident() -> int:
        gc.collect()
        memory: int = psutil.Process().memory_info().rss
        return memory

    async with app, app.worker(concurrency=200):
        for start in range(0, 4 * BATCH, BATCH):
            await one_batch(start)
        before = resident()
        for start in range(4 * BATCH, TASKS, BATCH):
            await one_batch(start)
        grown = resident() - before
    assert grown < ALLOWED, f"memory grew by {grown / 1e6:.1f} MB over {TASKS - 4 * BATCH} tasks"
