"""A worker whose task kills it."""

import asyncio
import os
import signal
from pathlib import Path

from celeriac import Celeriac

app = Celeriac(
    "poison",
    broker=os.environ.get("POISON_URL", "memory://"),
    backend=os.environ.get("POISON_URL", "memory://"),
    default_queue=os.environ.get("POISON_QUEUE", "poison"),
    lease=1.0,
    max_deliveries=2,
)


@app.task(name="poison.die")
def die() -> None:
    with Path(os.environ["POISON_RUNS"]).open("a") as runs:
        runs.write("run\n")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="poison.good")
async def good(value: int) -> int:
    return value


@app.task(name="poison.total")
async def total(values: list[int]) -> int:
    return sum(values)


@app.task(name="poison.told")
def told(task_id: str) -> None:
    with Path(os.environ["POISON_RUNS"]).open("a") as runs:
        runs.write(f"told of {task_id}\n")


def run() -> None:
    asyncio.run(app.worker().serve())
