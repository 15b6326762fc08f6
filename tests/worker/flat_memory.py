"""Sends and runs tasks in one process, and prints after each twentieth of them what memory is taken.

The first number is what is resident, the second how many blocks Python's objects take.
"""

import asyncio
import gc
import logging
import sys

import psutil

from celeriac import Celeriac, as_completed

PARTS = 20


async def main(url: str, name: str, tasks: int) -> None:
    logging.getLogger("celeriac.worker").setLevel(logging.CRITICAL)
    app = Celeriac(name, broker=url, backend=url, default_queue=name, result_expires=30)

    @app.task(name=name)
    async def add(x: int, y: int) -> int:
        if x % 50 == 0:
            raise ValueError(x)
        return x + y

    batch = tasks // PARTS

    async def one_batch(start: int) -> None:
        results = await app.send_many([add.call(start + i, 1) for i in range(batch)])
        # One wait for all of them is half as dear as one for each, so these come now and then.
        if start // batch % 4:
            results = [result async for result in as_completed(results)]
        values = await asyncio.gather(*(result.wait(60) for result in results), return_exceptions=True)
        assert sum(isinstance(value, ValueError) for value in values) == batch // 50
        assert sum(isinstance(value, int) for value in values) == batch - batch // 50

    async with app, app.worker(concurrency=200):
        for start in range(0, tasks, batch):
            await one_batch(start)
            gc.collect()
            print(psutil.Process().memory_info().rss, sys.getallocatedblocks(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
