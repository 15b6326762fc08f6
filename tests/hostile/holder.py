"""A process that takes some messages of a queue and then dies without a word: ``holder.py URL QUEUE COUNT``."""

import asyncio
import os
import sys

from celeriac import Celeriac


async def hold(url: str, queue: str, count: int) -> None:
    app = Celeriac("holder", broker=url, backend="disabled://", lease=0.4)
    async with app.connections().broker.subscribe([queue]) as subscription:
        taken = 0
        while taken < count:
            taken += len(await subscription.take(count - taken))
        os._exit(9)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2], int(sys.argv[3])))
