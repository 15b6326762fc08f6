"""The tasks as Celery workers run them. The environment says where: CHAOS_URL, CHAOS_LEDGER."""

import os
import time

from celery import Celery, Task
from celery.signals import task_received
from celery.worker.request import Request

from tests.chaos.ledger import Ledger
from tests.chaos.plan import NAP, QUEUE, VISIBILITY_TIMEOUT


def make_app(url: str | None, results: str | None) -> Celery:
    """An app without tasks, as the sender has it."""
    made = Celery("chaos", broker=url, backend=results, set_as_current=False)
    made.conf.update(
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        # Without confirmations a client of Celery does not hear that RabbitMQ lost what it sent.
        broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT, "confirm_publish": True},
        broker_connection_retry_on_startup=True,
    )
    return made


app = make_app(os.environ.get("CHAOS_URL"), os.environ.get("CHAOS_RESULTS"))
ledger = Ledger.of_environment()


def receive(request: Request, **_: object) -> None:
    ledger.received(request.id, request.request_dict["retries"])


if ledger.is_kept:  # else this would hear of the tasks of every other Celery app in this process
    task_received.connect(receive)


def begin(task: Task) -> None:
    given_back = task.request.delivery_info.get("redelivered")
    ledger.begin(task.request.id, task.request.retries, bool(given_back))


@app.task(name="chaos.quick", bind=True)
def quick(self: Task) -> None:
    begin(self)
    ledger.end(self.request.id, self.request.retries)


@app.task(name="chaos.slow", bind=True)
def slow(self: Task) -> None:
    begin(self)
    time.sleep(NAP)
    ledger.end(self.request.id, self.request.retries)


app.task(name="chaos.thread", bind=True)(slow.run.__func__)


@app.task(name="chaos.retry", bind=True)
def retry(self: Task) -> None:
    begin(self)
    ledger.end(self.request.id, self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=NAP)
