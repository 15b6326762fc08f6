"""The classes of a tasks framework: Django 6 has one (``django.tasks``); ``django_tasks`` is the same before it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from django.utils.module_loading import import_string

DJANGOS = {
    "django.tasks": "celeriac.integrations.django.TasksBackend",
    "django_tasks": "celeriac.integrations.django_tasks.TasksBackend",
}
"""Each framework, and the name of its backend of celeriac's in the setting ``TASKS``."""


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """One framework; both have the same classes, of modules of their own.

    :param missing: what is raised for the id of no result.
    :param normalize: returns a value as it arrives in JSON; raises ``TypeError`` for one that cannot.
    """

    base: Any
    task: Any
    result: Any
    error: Any
    context: Any
    status: Any
    missing: Any
    enqueued: Any
    started: Any
    finished: Any
    normalize: Any


@cache
def framework(package: str) -> Framework:
    """Return a framework by its package. Raises ``ImportError`` where it is not installed."""
    helpers = "django.utils.json" if package == "django.tasks" else f"{package}.utils"
    return Framework(
        base=import_string(f"{package}.backends.base.BaseTaskBackend"),
        task=import_string(f"{package}.base.Task"),
        result=import_string(f"{package}.base.TaskResult"),
        error=import_string(f"{package}.base.TaskError"),
        context=import_string(f"{package}.base.TaskContext"),
        status=import_string(f"{package}.base.TaskResultStatus"),
        missing=import_string(f"{package}.exceptions.TaskResultDoesNotExist"),
        enqueued=import_string(f"{package}.signals.task_enqueued"),
        started=import_string(f"{package}.signals.task_started"),
        finished=import_string(f"{package}.signals.task_finished"),
        normalize=import_string(f"{helpers}.normalize_json"),
    )


def backends_of(package: str) -> Any:
    """Return the backends of a framework, by their names in the setting ``TASKS``."""
    return import_string(f"{package}.task_backends")
