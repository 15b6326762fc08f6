"""A Celery app with periodic tasks; nothing in it knows of celeriac."""

import os
from pathlib import Path

from celery import Celery
from celery.beat import BeatLazyFunc

app = Celery("periodic", broker=os.environ.get("PERIODIC_BROKER"), set_as_current=False)
app.conf.update(
    task_default_queue=os.environ.get("PERIODIC_QUEUE", "periodic"),
    beat_schedule={
        "often": {"task": "periodic.note", "schedule": 0.5, "args": ("often",), "options": {"expires": 60}},
        "lazy": {"task": "periodic.note", "schedule": 0.7, "args": (BeatLazyFunc(lambda: "lazy"),)},
    },
)


@app.task(name="periodic.note", bind=True)
def note(self, what):
    with Path(os.environ["PERIODIC_NOTES"]).open("a") as file:
        file.write(f"{what} {self.request.id} {self.request.headers.get('celery_beat_task')}\n")
