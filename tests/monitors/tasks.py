"""The tasks of the worker that monitors look at, and the same names as Flower's own app knows them."""

import asyncio
import os
import time

from celeriac import Celeriac, Context

URL = os.environ["MONITORED"]
app = Celeriac("monitored", URL, os.environ.get("MONITORED_RESULTS", URL), remote_control=True)


@app.task(name="tasks.add")
async def add(x: int, y: int) -> int:
    return x + y


@app.task(name="tasks.fail")
async def fail() -> None:
    raise ValueError("boom")


@app.task(name="tasks.sleep")
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task(name="tasks.compute")
async def compute(seconds: float) -> None:
    """Do not let the event loop go."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@app.task(name="tasks.climb")
async def climb(ctx: Context) -> None:
    ctx.progress(1, 2, "half")
    await asyncio.sleep(0.1)
