"""What the measured celeriac workers run; the environment says where (CELERY_BROKER_URL, CELERY_RESULT_BACKEND)."""

import asyncio
import time

from celeriac import Celeriac

app = Celeriac("bench")


@app.task
async def add(x: int, y: int) -> int:
    """Do next to nothing, on the event loop."""
    return x + y


@app.task(ignore_result=True)
async def add_silent(x: int, y: int) -> int:
    """Do the same, and let nobody know."""
    return x + y


@app.task
def add_plain(x: int, y: int) -> int:
    """Do next to nothing, in a thread."""
    return x + y


@app.task
def spin(x: int, y: int) -> int:
    """Use a millisecond of processor."""
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    return x + y


@app.task
async def nap(seconds: float) -> None:
    """Wait as a task does that talks to a slow service."""
    await asyncio.sleep(seconds)


@app.task
async def length(text: str) -> int:
    """Say how long it is."""
    return len(text)


@app.task
async def count_values(values: list[int]) -> int:
    """Say how many there are: the body of a chord."""
    return len(values)
