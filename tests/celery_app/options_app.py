"""A Celery app that prints the options of the command line that it is told of, and those of its worker, and ends."""

import os
import pprint
import sys

from celery import Celery, signals

ATTRIBUTES = (
    "loglevel", "logfile", "pidfile", "statedb", "purge", "no_color", "time_limit", "soft_time_limit",
    "max_tasks_per_child", "prefetch_multiplier", "schedule_filename",
)  # fmt: skip

app = Celery("options", broker=os.environ.get("OPTIONS_BROKER"))


told = {}


def keep(options=None, **_):
    """Keep them."""
    told.update(options)


def tell(sender=None, **_):
    """Print them, and end the worker before it does anything."""
    told.update({f"worker_{name}": getattr(sender, name, "missing") for name in ATTRIBUTES})
    print("options:", pprint.pformat(told, width=100_000), file=sys.__stdout__, flush=True)
    os._exit(0)


if "OPTIONS_BROKER" in os.environ:
    signals.celeryd_init.connect(keep)
    signals.worker_init.connect(tell)
