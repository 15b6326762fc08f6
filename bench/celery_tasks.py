"""What the measured Celery worker runs: the same tasks by the same names; the same environment says where."""

from celery import Celery

app = Celery("bench")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="bench.tasks.add")
def add(x: int, y: int) -> int:
    """Do next to nothing, in a child process."""
    return x + y


app.task(add.run, name="bench.tasks.add_plain")


@app.task(name="bench.tasks.count_values")
def count_values(values: list[int]) -> int:
    """Say how many there are: the body of a chord."""
    return len(values)
