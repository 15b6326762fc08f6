"""The class that the setting ``TASKS`` names, for either framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from celeriac.integrations.django_bridge.bridge import Bridge
from celeriac.integrations.django_bridge.framework import framework


def backend_class(package: str) -> Any:
    """Return the backend's class for a framework. Raises ``ImportError`` where that is not installed."""
    frame = framework(package)
    base: Any = frame.base

    class TasksBackend(base):  # type: ignore[misc]  # it has no types
        """Sends tasks to the workers of an app.

        :ivar bridge: what it does.
        """

        supports_defer = True
        supports_async_task = True
        supports_priority = True

        def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
            super().__init__(alias, params)
            self.bridge = Bridge(package, frame, type(self), alias, self.options)

        @property
        def supports_get_result(self) -> bool:
            """Whether the app keeps results that can be read by their id."""
            return self.bridge.carrier.keeps_results

        def validate_task(self, task: Any) -> None:
            """Raise Django's ``InvalidTask`` for what cannot be run. Django calls it for each task that is made."""
            super().validate_task(task)
            self.bridge.know(task)

        def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            """Send a call; return its ``TaskResult``."""
            self.validate_task(task)
            return self.bridge.enqueue(task, args, kwargs)

        async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            """Do as ``enqueue`` without blocking the loop."""
            self.validate_task(task)
            return await self.bridge.aenqueue(task, args, kwargs)

        def get_result(self, result_id: str) -> Any:
            """Return the ``TaskResult`` of an id. Raises Django's ``TaskResultDoesNotExist``."""
            return self.bridge.result(result_id)

        async def aget_result(self, result_id: str) -> Any:
            """Do as ``get_result`` without blocking the loop."""
            return await self.bridge.aresult(result_id)

        def check(self, **kwargs: Any) -> list[Any]:
            """Return what ``manage.py check`` is to say of it."""
            found = list(super().check(**kwargs))
            try:
                _ = self.bridge.carrier
            except ImproperlyConfigured as error:
                found.append(checks.Error(str(error), id="celeriac.E001"))
            return found

    return TasksBackend
