"""A Celery program that calls a celeriac task, unchanged. Run `celeriac -A celeriac_tasks worker` beside it.

Both take the Redis that CELERY_BROKER_URL and CELERY_RESULT_BACKEND name.
"""

from celery import Celery

app = Celery("producer")


def main() -> None:
    print("sum:", app.send_task("celeriac_tasks.add", [2, 3]).get(timeout=10))
    try:
        app.send_task("celeriac_tasks.divide", [1, 0]).get(timeout=10)
    except ZeroDivisionError as error:
        print("error:", error)


if __name__ == "__main__":
    main()
