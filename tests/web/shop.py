"""The tasks of the fleet that the dashboard shows; an app of Celery's, as most fleets are."""

import os

from celery import Celery

url = os.environ.get("WEB_TESTS_REDIS", "redis://localhost")
app = Celery("shop", broker=url, backend=url)
app.conf.task_send_sent_event = True
app.conf.worker_send_task_events = True


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def fail(text: str, password: str = "") -> None:
    raise ValueError(text)


@app.task
def decline(order: int) -> None:
    raise LookupError(order)
