"""A worker of tasks with a time, which write down when they ran."""

import asyncio
import os
import time

from celeriac import Celeriac

app = Celeriac(
    "later",
    broker=os.environ.get("LATER_URL", "memory://"),
    backend=os.environ.get("LATER_URL", "memory://"),
    key_prefix=os.environ.get("LATER_PREFIX", "later:"),
    lease=2.0,
)
RUNS = os.open(os.environ.get("LATER_RUNS", os.devnull), os.O_CREAT | os.O_APPEND | os.O_WRONLY)


@app.task(name="later.note")
async def note(number: int, due: float) -> None:
    os.write(RUNS, f"{number} {time.time() - due}\n".encode())


@app.task(name="later.pid")
async def pid() -> int:
    return os.getpid()


def run() -> None:
    asyncio.run(app.worker(concurrency=50).serve())
