"""The options of the command line as receivers of ``celeryd_init`` get them, under Celery's names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.concurrency import get_implementation

UNSAID: Mapping[str, Any] = {
    "autoscale": None,
    "beat": None,
    "concurrency": None,
    "detach": False,
    "exclude_queues": None,
    "executable": None,
    "heartbeat_interval": None,
    "include": None,
    "logfile": None,
    "max_memory_per_child": None,
    "max_tasks_per_child": None,
    "no_color": False,
    "optimization": "default",
    "pidfile": None,
    "pool_cls": None,
    "pool_start_method": None,
    "purge": False,
    "queues": None,
    "scheduler": None,
    "soft_time_limit": None,
    "statedb": None,
    "task_events": None,
    "time_limit": None,
    "umask": None,
    "without_gossip": False,
    "without_heartbeat": False,
    "without_mingle": False,
}
"""What Celery gives for an option that was not said; three more are the app's."""

POOLS = {"processes": "prefork", "threads": "threads", "solo": "solo"}


def options_of(app: Celery, pool: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a worker.

    :param pool: the name of its pool, ours.
    :param said: what the command line says, under Celery's names; ``loglevel`` by its name.
    """
    options = {
        **UNSAID,
        "loglevel": "info",
        "prefetch_multiplier": app.conf.worker_prefetch_multiplier,
        "schedule_filename": app.conf.beat_schedule_filename,
        **{name: value for name, value in said.items() if value is not None},
        "pool": get_implementation(POOLS[pool]),
    }
    options["loglevel"] = logging.getLevelName(options["loglevel"].upper())
    return options
