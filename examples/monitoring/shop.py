"""The tasks of the monitored workers; `python shop.py` sends some."""

import asyncio
import random

from celeriac import Celeriac, Retry

app = Celeriac("shop")


@app.task(retry=Retry(max_attempts=3, on=(ConnectionError,)))
async def deliver(order: int) -> str:
    """Deliver an order, which takes a while and fails now and then."""
    await asyncio.sleep(random.expovariate(2))
    if random.random() < 0.1:
        raise ConnectionError("the courier does not answer")
    return f"order {order} is on its way"


async def main() -> None:
    """Send an order every now and then."""
    async with app:
        for order in range(1000):
            await deliver.send(order)
            await asyncio.sleep(random.expovariate(10))


if __name__ == "__main__":
    asyncio.run(main())
