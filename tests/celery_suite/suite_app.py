"""The app of the worker that Celery's integration suite runs against: what the suite's own worker has, from outside."""

import os

from celery import Celery

from tests.celery_suite.relay import Relay

app = Celery(
    "celery.tests",
    broker=os.environ["TEST_BROKER"],
    backend=os.environ["TEST_BACKEND"],
    include=["t.integration.tasks"],
)
app.conf.update(
    accept_content={"json"},
    broker_heartbeat=0,
    enable_utc=True,
    result_extended=True,
    task_create_missing_queues=False,
    timezone="UTC",
    worker_hijack_root_logger=False,
    worker_log_color=False,
    worker_prefetch_multiplier=int(os.environ.get("SUITE_PREFETCH", "4")),
    worker_send_task_events=True,
)


@app.on_after_finalize.connect
def register(sender, **_):
    from t.integration.tasks import ClassBasedAutoRetryTask

    sender.register_task(ClassBasedAutoRetryTask())


Relay(os.environ["SUITE_RELAY"]).begin()
