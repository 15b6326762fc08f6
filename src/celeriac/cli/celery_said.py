"""What the command line of a worker says, under the names that Celery's worker has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.cli.celery_options import CeleryOptions

SAME = ("beat", "concurrency", "logfile", "loglevel", "max_memory_per_child", "max_tasks_per_child")
"""Our options that have the same names."""

RENAMED = {"--schedule": "schedule_filename"}


def said(own: Mapping[str, Any], celerys: CeleryOptions, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return it; what was not said is missing.

    :param own: the command's own options.
    :param others: the values of those that are accepted for Celery's sake, by their last names.
    """
    queues = own["queues"]
    found = {
        **{name: own[name] for name in SAME},
        "queues": None if queues is None else queues.split(","),
        "pool_start_method": own["start_method"],
        "task_events": own["send_events"],
        "without_heartbeat": own["without_heartbeat"],
        "exclude_queues": list(celerys.exclude),
        "include": list(celerys.include),
        **{
            name: getattr(celerys, name)
            for name in ("autoscale", "optimization", "pidfile", "prefetch_multiplier", "purge")
        },
        "soft_time_limit": celerys.soft_time_limit,
        "time_limit": celerys.time_limit,
        **{RENAMED.get(name, name.strip("-").replace("-", "_")): value for name, value in others.items()},
    }
    return {
        name: _as_celerys(name, value)
        for name, value in found.items()
        if value is not None and value is not False and value != []
    }


def _as_celerys(name: str, value: Any) -> Any:
    return int(value) if name == "heartbeat_interval" else value
