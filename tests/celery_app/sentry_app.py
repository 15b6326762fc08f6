"""A Celery app with Sentry's own integration of Celery; what would be sent to Sentry goes to a file, a line an item."""

import json
import os

import sentry_sdk
from celery import Celery, signals
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

app = Celery("watched", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("WATCHED_BROKER"),
    result_backend=os.environ.get("WATCHED_BROKER"),
    task_default_queue=os.environ.get("WATCHED_QUEUE", "watched"),
)


class ToFile(Transport):
    """Writes the items of envelopes down."""

    def capture_envelope(self, envelope):
        with open(os.environ["WATCHED_FILE"], "a") as file:  # noqa: PTH123 - opened to append one line
            for item in envelope.items:
                facts = {"kind": item.type, "pid": os.getpid(), **json.loads(item.payload.get_bytes())}
                file.write(json.dumps(facts) + "\n")


def watch(**_):
    """Set Sentry up, as its documentation says: when a process that runs tasks starts, and the worker too."""
    sentry_sdk.init(
        "http://key@localhost/1",
        transport=ToFile,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration()],
        auto_enabling_integrations=False,
    )


if "WATCHED_FILE" in os.environ:
    signals.celeryd_init.connect(watch, weak=False)
    signals.worker_process_init.connect(watch, weak=False)


@app.task
def add(x, y):
    return x + y


@app.task
def fail(secret):
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return add.delay(1, 1).id
