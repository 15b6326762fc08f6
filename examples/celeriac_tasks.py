"""The celeriac side of `celery_producer.py`."""

from celeriac import Celeriac

app = Celeriac("mixed")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def divide(x: int, y: int) -> float:
    return x / y


if __name__ == "__main__":
    print("run me: celeriac -A celeriac_tasks worker; my tasks:", *app.tasks)
