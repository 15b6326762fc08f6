"""Calls the errbacks that run in the worker itself.

Rules, which are Celery's: an errback runs in the worker (inline) if its task is registered here, is not bound and takes
more than one argument. It gets the request, the exception and the traceback; an immutable one gets its own arguments
alone. Every other errback is sent as a message with the failed task's id. An error of an errback is logged and changes
nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from celeriac.canvas.celery_form import from_dict
from celeriac.canvas.nodes import Signature
from celeriac.context import Context
from celeriac.errors import MalformedMessage
from celeriac.servers.offload import in_thread
from celeriac.wire.failure import format_traceback
from celeriac.wire.result import FAILURE
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import Attempt
from celeriac.worker.calling import Calling
from celeriac.worker.decision import Decision
from celeriac.worker.pool import Call
from celeriac.worker.raised import forget_frames
from celeriac.worker.runnable import Runnable

logger = logging.getLogger("celeriac.worker")


class Errbacks:
    """Knows which errbacks are inline, and calls them."""

    def __init__(self, tasks: Mapping[str, Runnable], calling: Calling) -> None:
        self._tasks = tasks
        self._calling = calling

    def is_inline(self, errback: Signature[Any]) -> bool:
        """Whether an errback with this signature is called here."""
        task = self._tasks.get(errback.task)
        if task is None:
            return False
        if task.conduct.errback is not None:
            return task.conduct.errback(errback.to_dict()) is not None
        return not _wants_context(task) and _takes_several(task)

    def concern(self, message: TaskMessage, decision: Decision) -> bool:
        """Whether any errback of a failed task is called here."""
        if decision.state != FAILURE or decision.error is None:
            return False
        return any(self._is_called(signature) for signature in message.errbacks)

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
            if self._is_called(signature):
                await self._call_one(signature, context or Context(message), error)

    def _is_called(self, signature: dict[str, Any]) -> bool:
        with suppress(MalformedMessage):
            node = from_dict(signature)
            return isinstance(node, Signature) and self.is_inline(node)
        return False

    async def _call_one(self, signature: Mapping[str, Any], context: Context, error: BaseException) -> None:
        task = self._tasks[signature["task"]]
        if task.conduct.errback is not None and (errback := task.conduct.errback(signature)) is not None:
            try:
                await in_thread(partial(errback, context, error, format_traceback(error)))
            except Exception:
                logger.exception("errback %s of %s[%s] failed", task.name, context.task, context.id)
            return
        args = list(signature.get("args") or [])
        if not signature.get("immutable"):
            args = [context, error, format_traceback(error), *args]
        kwargs = dict(signature.get("kwargs") or {})
        try:
            await self._calling(Call(task, args, kwargs, context))
        except Exception as failure:
            logger.exception("errback %s of %s[%s] failed", task.name, context.task, context.id)
            forget_frames(failure)


def _wants_context(task: Runnable) -> bool:
    return task.bind or task.arguments.context_parameter is not None


def _takes_several(task: Runnable) -> bool:
    positional = 0
    for parameter in inspect.signature(task.function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional += 1
    return positional > 1
