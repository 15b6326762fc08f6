"""The Celery app that Celery's worker and celeriac's both run as it is; the environment says where.

``BENCH_POSTRUN`` connects a receiver of ``task_postrun``, as Django's and many libraries' do; ``BENCH_MEGABYTES`` makes
the app large: so much is made when it is imported, and shared by what is forked afterwards.
"""

import os

from celery import Celery, signals

app = Celery("bench")
app.conf.broker_connection_retry_on_startup = True

LARGE = [[number] for number in range(int(os.environ.get("BENCH_MEGABYTES", "0")) * 1_000_000 // 116)]
"""Lists, which the collector of garbage looks at as at what real modules are made of; one has 116 bytes in all."""


@app.task(name="bench.tasks.add")
def add(x: int, y: int) -> int:
    """Do next to nothing."""
    return x + y


def look(**_: object) -> None:
    """Do nothing, after the record of each task."""


if "BENCH_POSTRUN" in os.environ:
    signals.task_postrun.connect(look)
