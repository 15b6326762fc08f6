"""A program that does its own work and runs tasks beside it, with retries, and stops gracefully."""

import asyncio

from celeriac import Celeriac, Context, Retry

app = Celeriac("crawler", broker="memory://")


@app.task(retry=Retry(on=(ConnectionError,), max_attempts=4, backoff=0.01))
async def fetch(ctx: Context, page: int) -> str:
    if page % 2 and ctx.attempt == 1:
        raise ConnectionError(f"page {page}")
    await asyncio.sleep(0.01)
    return f"page {page}, attempt {ctx.attempt}"


async def main() -> None:
    async with app.worker(concurrency=2) as worker:
        results = await app.send_many([fetch.call(page) for page in range(4)])
        for text in await asyncio.gather(*results):
            print(text)
    # Leaving the block has let everything end: results are stored, messages acknowledged.
    print("received", worker.tally.received, "messages,", worker.tally.ended["RETRY"], "retries")


if __name__ == "__main__":
    asyncio.run(main())
