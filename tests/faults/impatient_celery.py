"""A real Celery worker that takes what it has not heard of for a second for lost."""

import sys

from celery import Celery

url, queue = sys.argv[1:]

app = Celery("impatient", broker=url, set_as_current=True)
app.conf.task_default_queue = queue
app.conf.broker_transport_options = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 0.3,
    "unacked_restore_throttle": 1,
}
app.conf.worker_prefetch_multiplier = 1


QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
app.worker_main(["worker", "-P", "prefork", "-c", "1", "-l", "INFO", "-n", f"{queue}@localhost", *QUIET])
