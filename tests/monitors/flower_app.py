"""The app of Flower: it must know the tasks whose limits it changes."""

import os

import celery

app = celery.Celery("monitored", broker=os.environ["MONITORED"], backend=os.environ["MONITORED"])


@app.task(name="tasks.add")  # type: ignore[untyped-decorator]
def add() -> None:
    """Run elsewhere."""
