"""A Celery app whose tasks note that they ran."""

import os
from pathlib import Path

from celery import Celery

from celeriac.worker.pools.processes import ahead

app = Celery("killed", broker=os.environ.get("KILLED_URL"), backend=os.environ.get("KILLED_URL"))

ahead.MOST_CHILDREN = 8  # calls go ahead however few processors this machine has


@app.task
def noted(runs: str, number: int) -> int:
    with Path(runs).open("a") as file:
        file.write(f"{number}\n")
    return number
