"""Sends and runs 200,000 tasks in one process, and prints the memory that was resident after each 10,000."""

import asyncio
import gc
import logging
import sys

import psutil

from celeriac import Celeriac, as_completed

TASKS, BATCH = 200_000, 10_000


async def main(url: str, name: str) -> None:
    logging.getLogger("celeriac.worker").setLevel(logging.CRITICAL)
    app = Celeriac(name, broker=url, backend=url, default_queue=name, result_expires=30)

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

    async with app, app.worker(concurrency=200):
        for start in range(0, TASKS, BATCH):
            await one_batch(start)
            gc.collect()
            print(psutil.Process().memory_info().rss, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
