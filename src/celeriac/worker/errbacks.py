"""Calls the errbacks that run in the worker itself.

Rules, as Celery has them: an errback whose task is registered here, is not bound and takes more than one argument is
called with request, exception and traceback, an immutable one with its own arguments alone; all others get the failed
task's id in a message. What an errback raises is logged and changes nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from celeriac.client.task import Task
from celeriac.context import Context
from celeriac.wire.failure import format_traceback
from celeriac.wire.result import FAILURE
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import Attempt
from celeriac.worker.outcome import Decision
from celeriac.worker.pool import Call, Pool
from celeriac.worker.raised import forget_frames

logger = logging.getLogger("celeriac.worker")


class Errbacks:
    """Knows which errbacks are inline, and calls them."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any]], pool: Pool) -> None:
        self._tasks = tasks
        self._pool = pool

    def is_inline(self, name: str) -> bool:
        """Whether an errback of this task name is called here."""
        task = self._tasks.get(name)
        return task is not None and not _wants_context(task) and _takes_several(task)

    async def call(self, attempt: Attempt, decision: Decision) -> None:
        """Call the inline errbacks of a failed attempt, in order."""
        if decision.state != FAILURE or decision.error is None:
            return
        await self.call_for(attempt.message, decision.error, attempt.context)

    async def call_for(
        self, message: TaskMessage, error: BaseException, context: Context | None = None
    ) -> None:
        """Call the inline errbacks of a task that failed, or never ran, in order."""
        for signature in message.errbacks:
            if self.is_inline(signature["task"]):
                await self._call_one(signature, context or Context(message), error)

    async def _call_one(self, signature: Mapping[str, Any], context: Context, error: BaseException) -> None:
        task = self._tasks[signature["task"]]
        args = list(signature.get("args") or [])
        if not signature.get("immutable"):
            args = [context, error, format_traceback(error), *args]
        kwargs = dict(signature.get("kwargs") or {})
        try:
            if task.is_coroutine:
                await task.function(*args, **kwargs)
            else:
                await self._pool.call(Call(task, args, kwargs, context))
        except Exception as failure:
            logger.exception("errback %s of %s[%s] failed", task.name, context.task, context.id)
            forget_frames(failure)


def _wants_context(task: Task[Any, Any]) -> bool:
    return task.bind or task.arguments.context_parameter is not None


def _takes_several(task: Task[Any, Any]) -> bool:
    positional = 0
    for parameter in inspect.signature(task.function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional += 1
    return positional > 1
