"""Define a task, send it, run it, get its value: on a file, with nothing to install or start."""

import asyncio

from celeriac import Celeriac

app = Celeriac("hello")  # ./hello.db


@app.task
async def greet(name: str) -> str:
    return f"hello, {name}"


async def main() -> None:
    async with app.worker():
        result = await greet.send("world")
        print(await result)


if __name__ == "__main__":
    asyncio.run(main())
