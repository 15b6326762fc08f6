"""What the measured Celery worker runs: the same tasks by the same names; the same environment says where."""

import time

from celery import Celery

app = Celery("bench")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="bench.tasks.add")
def add(x: int, y: int) -> int:
    """Do next to nothing, in a child process."""
    return x + y


app.task(add.run, name="bench.tasks.add_plain")


@app.task(name="bench.tasks.spin")
def spin(x: int, y: int) -> int:
    """Use a millisecond of processor."""
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    return x + y


@app.task(name="bench.tasks.count_values")
def count_values(values: list[int]) -> int:
    """Say how many there are: the body of a chord."""
    return len(values)
