"""A base class of a Celery app's tasks by which an asyncio program sends them without blocking its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Task
from celery.result import AsyncResult, EagerResult

from celeriac.celery_app.awaiting import let_await
from celeriac.celery_app.coroutines import Coroutines

_LOOP = "_celeriac_coroutines"


class AsyncTask(Task):  # type: ignore[misc]  # Celery has no types
    """A Celery task with ``asend``: ``Celery("proj", task_cls="celeriac.celery_app.async_task:AsyncTask")``.

    Sending is Celery's own, in a thread: routers, signals and an ``apply_async`` of the app's have their say, and it
    raises what they raise (``kombu.exceptions.OperationalError`` where the broker is away).
    """

    abstract = True

    async def asend(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send the task with these arguments (Celery: ``delay``)."""
        return await asyncio.to_thread(self.apply_async, args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Send the task with these arguments and options (Celery: ``apply_async``)."""
        return await asyncio.to_thread(self.apply_async, args, kwargs, **options)

    def apply(self, *args: Any, **kwargs: Any) -> EagerResult:
        """Run the task here and now (Celery: ``apply``, which ``task_always_eager`` leads to), a coroutine to its end.

        Celery's own ``apply`` gives the coroutine itself, which nobody awaits.
        """
        if not hasattr(self.app, _LOOP):
            setattr(self.app, _LOOP, Coroutines())
        let_await(self, getattr(self.app, _LOOP))
        return super().apply(*args, **kwargs)
