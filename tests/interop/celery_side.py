"""The tasks as a Celery application has them; a Celery worker process runs this module.

The environment says where: INTEROP_BROKER, INTEROP_BACKEND, INTEROP_QUEUE; INTEROP_QUEUE_TYPE chooses quorum queues on
topic exchanges, which is what Celery needs to have RabbitMQ keep delayed tasks; INTEROP_RESULT_COMPRESSION has results
compressed.
"""

import json
import os
import time
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from celery import Celery, Task, group, signature

from tests.interop.errors import OutOfStock
from tests.interop.record import record, wait_for_record

app = Celery(
    "interop",
    broker=os.environ.get("INTEROP_BROKER"),
    backend=os.environ.get("INTEROP_BACKEND"),
    set_as_current=False,
)
app.conf.update(
    task_default_queue=os.environ.get("INTEROP_QUEUE", "celery"),
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Celery 4 keeps the parts of a chord where others do only when it is told to; newer ones do so anyhow.
    result_backend_transport_options={"result_chord_ordered": True},
    result_compression=os.environ.get("INTEROP_RESULT_COMPRESSION"),
)


if queue_type := os.environ.get("INTEROP_QUEUE_TYPE"):
    app.conf.update(
        task_default_queue_type=queue_type,
        task_default_exchange=f"{app.conf.task_default_queue}.topic",
        task_default_exchange_type="topic",
        task_default_routing_key=app.conf.task_default_queue,
    )


@app.task(name="interop.echo")
def echo(*args, **kwargs):
    return [args, kwargs]


@app.task(name="interop.add")
def add(x, y):
    return x + y


@app.task(name="interop.str")
def text(value):
    return str(value)


@app.task(name="interop.none")
def none():
    return None


@app.task(name="interop.kinds")
def kinds(moment: datetime, amount: Decimal, uid: UUID):
    assert isinstance(moment, datetime)
    assert isinstance(amount, Decimal)
    assert isinstance(uid, UUID)
    return {"moment": moment, "amount": amount, "uid": uid}


@app.task(name="interop.fail")
def fail(text):
    raise ValueError(text)


@app.task(name="interop.run_out")
def run_out(item, wanted):
    raise OutOfStock(item, wanted)


@app.task(name="interop.retry_twice", bind=True)
def retry_twice(self: Task):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [self.request.id, self.request.retries]


@app.task(name="interop.give_up", bind=True)
def give_up(self: Task, url, key):
    record(url, key, str(self.request.retries))
    raise self.retry(exc=OutOfStock("patience", self.request.retries), countdown=0, max_retries=1)


@app.task(name="interop.clock")
def clock():
    return time.time()


@app.task(name="interop.seen", bind=True)
def seen(self: Task):
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "queue": request.delivery_info["routing_key"],
        "headers": request.headers,
    }


@app.task(name="interop.requested", bind=True)
def requested(self: Task, name):
    return self.request.get(name)


@app.task(name="interop.note")
def note(url, key, value):
    record(url, key, value)
    return value


@app.task(name="interop.note_value")
def note_value(value, *, url, key):
    record(url, key, json.dumps(value))


@app.task(name="interop.note_failure")
def note_failure(failed_id, *, url, key):
    record(url, key, failed_id)


@app.task(name="interop.note_error")
def note_error(request, error, traceback, *, url, key):
    record(url, key, f"{request.id} {error!r}")


@app.task(name="interop.report", bind=True)
def report(self: Task, url, key):
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 2, "message": None})
    wait_for_record(url, key, timeout=60)
    return "done"


@app.task(name="interop.note_run", bind=True)
def note_run(self: Task, url, key):
    record(url, key, f"{self.request.id} celery")


@app.task(name="interop.total")
def total(numbers):
    return sum(numbers)


@app.task(name="interop.same")
def same(value):
    return value


@app.task(name="interop.become", bind=True)
def become(self: Task, x, y):
    return self.replace(add.s(x, y).set(queue=self.request.delivery_info["routing_key"]))


@app.task(name="interop.become_group", bind=True)
def become_group(self: Task, x):
    queue = self.request.delivery_info["routing_key"]
    return self.replace(group(add.s(x, n).set(queue=queue) for n in (1, 2)))


@app.task(name="interop.become_this", bind=True)
def become_this(self: Task, value, workflow):
    return self.replace(signature(workflow, app=app))


@app.task(name="interop.retry_then", bind=True)
def retry_then(self: Task, value):
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return value


@app.task(name="interop.work")
def work(*given):
    return list(given)
