"""The measurements, by the name that ``--only`` takes, in the order of the table."""

from collections.abc import Callable, Mapping

from bench.measures import (
    celery_app,
    consume,
    dashboard,
    events,
    guarantees,
    idle,
    large,
    nap,
    postgres,
    processes,
    rabbitmq,
    roundtrip,
    seen,
    send,
    slots,
    sqlite,
    ticks,
    workflows,
)
from bench.plan import Plan
from bench.rows import Row

MEASURES: Mapping[str, Callable[[Plan], list[Row]]] = {
    "consume": consume.measure,
    "slots": slots.measure,
    "processes": processes.measure,
    "celery-app": celery_app.measure,
    "events": events.measure,
    "seen": seen.measure,
    "guarantees": guarantees.measure,
    "send": send.measure,
    "roundtrip": roundtrip.measure,
    "idle": idle.measure,
    "nap": nap.measure,
    "large": large.measure,
    "sqlite": sqlite.measure,
    "postgres": postgres.measure,
    "workflows": workflows.measure,
    "rabbitmq": rabbitmq.measure,
    "ticks": ticks.measure,
    "dashboard": dashboard.measure,
}
