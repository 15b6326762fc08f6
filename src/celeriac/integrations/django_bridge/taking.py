"""Lets the workers of an app run the tasks of Django that are to be carried by it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import autodiscover_modules

from celeriac.integrations.django_bridge.framework import DJANGOS, backends_of


def take_tasks(app: Any) -> None:
    """Import the module ``tasks`` of each installed app, and register their Django tasks with an app.

    Nothing is done where Django is not set up, or no backend of the setting ``TASKS`` names this app.

    :param app: a ``Celeriac``, or a ``celery.Celery``.

    Raises what the modules raise.
    """
    if not settings.configured or not apps.ready:
        return
    given = getattr(settings, "TASKS", None) or {}
    for package, name in DJANGOS.items():
        for alias in [alias for alias, params in given.items() if params.get("BACKEND") == name]:
            bridge = backends_of(package)[alias].bridge
            if bridge.app is app:
                autodiscover_modules("tasks")
                bridge.carrier  # noqa: B018 - registers what is known
