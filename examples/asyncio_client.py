"""What a web program on asyncio does: many requests at once, each sends a task and answers with its value."""

import asyncio

from celeriac import Celeriac, ResultTimeout, as_completed

app = Celeriac("prices")


@app.task
async def price(article: int, amount: int = 1) -> float:
    await asyncio.sleep(0.01)
    return 9.5 * article * amount


async def request(article: int) -> str:
    result = await price.send(article, amount=2)
    try:
        return f"article {article}: {await result.wait(timeout=10)}"
    except ResultTimeout:
        return f"article {article}: ask again with id {result.id}"


async def main() -> None:
    async with app, app.worker():
        for answer in await asyncio.gather(*(request(article) for article in range(1, 4))):
            print(answer)

        results = await app.send_many([price.call(article) for article in range(100)])
        total = 0.0
        async for result in as_completed(results):
            total += await result
        print("a hundred at once:", total)


if __name__ == "__main__":
    asyncio.run(main())
