"""A Celery app whose tasks can be held in their body, or in the hooks that run once their ending is on record."""

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals

app = Celery("ending", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("ENDING_BROKER"),
    result_backend=os.environ.get("ENDING_BACKEND"),
    task_default_queue=os.environ.get("ENDING_QUEUE", "ending"),
    worker_deduplicate_successful_tasks="ENDING_DEDUPLICATES" in os.environ,
)


def note(what: str, *facts: Any) -> None:
    """Write down what happened, for the test to read."""
    with Path(os.environ["ENDING_NOTES"]).open("a") as file:
        file.write(json.dumps([what, *facts]) + "\n")


def hold(where: str) -> None:
    """Wait here for as long as the test's file for this place is there."""
    deadline = time.monotonic() + 60
    while Path(f"{os.environ['ENDING_NOTES']}.{where}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Held(Task):
    """Notes its hooks, and may be held in the first of them."""

    def on_success(self, retval, task_id, args, kwargs):
        note("on_success", task_id, os.getpid())
        hold("hook")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note("after_return", task_id)


@signals.task_postrun.connect
def postrun(task_id=None, **_):
    note("task_postrun", task_id)


def body(task):
    note("body", task.request.id)
    hold("body")
    return task.request.id


@app.task(base=Held, bind=True)
def early(self):
    """Acknowledged before it runs, Celery's default."""
    return body(self)


@app.task(base=Held, bind=True, acks_late=True)
def late(self):
    """Acknowledged when its hooks are done."""
    return body(self)


@app.task
def follow(task_id):
    note("followed", task_id)


@app.task
def last():
    return "last"
