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


def run() -> None:
    asyncio.run(app.worker().serve())
