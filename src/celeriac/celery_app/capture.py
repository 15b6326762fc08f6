"""The seam between Celery's tracer and celeriac: a result backend that takes the endings of tasks.

Celery's own tracer runs the body, the hooks and the signals, in Celery's order, and tells ``task.backend`` how the task
ended. In place of storing that, calling errbacks and counting chords, this backend hands it to celeriac.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol


class Endings(Protocol):
    """What takes the endings of one run."""

    def is_of(self, request: Any) -> bool:
        """Whether a request is that of this run, and not of a task that was applied inside it."""
        ...

    def returned(self, value: Any, request: Any) -> None:
        """The body returned. Raises kombu's ``EncodeError`` for a value that cannot be stored."""
        ...

    def failed(self, error: BaseException, traceback: Any, request: Any) -> None:
        """The task failed for good."""
        ...

    def retried(self, error: BaseException | None, traceback: Any, request: Any) -> None:
        """The task will run again."""
        ...


RUN: ContextVar[Endings | None] = ContextVar("celeriac_celery_run", default=None)
"""The run of a Celery task that this thread is in."""


class CapturingBackend:
    """Stands before a task's backend: everything but the endings of running tasks goes on to the real one."""

    def __init__(self, real: Callable[[], Any]) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __reduce__(self) -> Any:
        return self._real().__reduce__()

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Take the value of a task that runs here."""
        run = RUN.get()
        if run is None or not run.is_of(request):
            return self._real().mark_as_done(task_id, result, request, *args, **kwargs)
        return run.returned(result, request)

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Take the failure of a task that runs here."""
        run = RUN.get()
        if run is None or not run.is_of(request):
            return self._real().mark_as_failure(task_id, exc, traceback, request=request, **kwargs)
        return run.failed(exc, traceback, request)

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException | None,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Take the retry of a task that runs here."""
        run = RUN.get()
        if run is None or not run.is_of(request):
            return self._real().mark_as_retry(task_id, exc, traceback, request=request, **kwargs)
        return run.retried(exc, traceback, request)
