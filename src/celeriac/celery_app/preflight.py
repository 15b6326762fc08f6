"""What a Celery app has besides settings that celeriac's worker does not follow, such as bootsteps.

Rules: nothing is connected to; only what is loaded already is looked at, so the tasks' modules are to be imported
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.app.task import Task

from celeriac.celery_app.differences import Departure
from celeriac.celery_app.kombu_codecs import registered
from celeriac.celery_app.settings import SERIALIZERS
from celeriac.wire.content import COMPRESSIONS

_KINDS = {"worker": "a worker starts", "consumer": "a worker connects"}


def look_at(app: Celery) -> Iterator[Departure]:
    """Yield what is not as in Celery, in the order of worker, tasks."""
    yield from _bootsteps(app)
    for option in (*app.user_options.get("worker", ()), *app.user_options.get("preload", ())):
        name = max(option.opts, key=len)
        yield Departure(
            "warn", f"option {name}", "the app's own options of the worker are not known here: use a variable"
        )
    for task in dict.values(app.tasks):
        yield from _task(task)


def _bootsteps(app: Celery) -> Iterator[Departure]:
    for kind, when in _KINDS.items():
        for step in app.steps[kind]:
            text = (
                f"is not run when {when}: move it to the signals worker_init, worker_ready, worker_shutdown"
            )
            yield Departure("warn", f"bootstep {_name(step)}", text)


def _task(task: Any) -> Iterator[Departure]:
    about = f"task {task.name}"
    for name in ("Request", "Strategy"):
        if getattr(task, name) != getattr(Task, name):
            text = f"its {name} is not used: what it does can be a hook of the task's class, such as before_start"
            yield Departure("warn", about, text)
    conf = task.app.conf  # what is said of the setting is not said again of each task
    if (
        task.serializer not in SERIALIZERS
        and not registered(task.serializer)
        and task.serializer != conf.task_serializer
    ):
        yield Departure(
            "refuse", about, f"serializer {task.serializer!r} is not known: use json, msgpack, yaml or pickle"
        )
    compression = getattr(task, "compression", None)
    if (
        compression != conf.task_compression
        and compression
        and compression not in (*COMPRESSIONS, *COMPRESSIONS.values())
    ):
        yield Departure(
            "refuse", about, f"compression {compression!r} is not known: use {', '.join(COMPRESSIONS)}"
        )


def _name(step: Any) -> str:
    if isinstance(step, str):
        return step
    kind = step if isinstance(step, type) else type(step)
    # Celery puts the module before the qualified name of a bootstep's class.
    return f"{kind.__module__}.{kind.__qualname__.removeprefix(f'{kind.__module__}.')}"
