"""Calls a task: the one place where a worker runs a user's function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CoroutineType
from typing import Any

from celeriac.context import CURRENT, Context
from celeriac.worker.concluding import CONCLUSION
from celeriac.worker.deadline import bounded
from celeriac.worker.pool import Call, Pool
from celeriac.worker.runnable import Runnable


class Calling:
    """Runs coroutines on the loop and plain functions in the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def bound(
        self, task: Runnable, context: Context, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Check and convert the arguments of a call, then make it without limits. Raises ``ArgumentError``."""
        return await self(bind(task, context, args, kwargs))

    async def __call__(self, call: Call) -> Any:
        """Return what the function returns, or raise what it raises.

        Where the call lets the function hand over its ending, the answer may be a ``Paused``.
        """
        soft, hard = call.soft, call.hard
        if call.task.is_coroutine:
            CURRENT.set(call.context)
            if call.conclusion is not None:
                CONCLUSION.set(call.conclusion)
            body = call.task.function(*call.args, **call.kwargs)
        else:
            body, soft = self._pool.call(call), None
        value = await body if soft is None and hard is None else await bounded(body, soft, hard)
        if type(value) is CoroutineType:
            # A plain function wraps a coroutine function: the coroutine that it returned has yet to run.
            CURRENT.set(call.context)
            soft = call.soft
            return await value if soft is None and hard is None else await bounded(value, soft, hard)
        return value


def bind(task: Runnable, context: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Return a call with the arguments as the function takes them. Raises ``ArgumentError``."""
    positional, named = task.arguments.bind(args, kwargs)
    if task.arguments.context_parameter is not None:
        task.arguments.inject(context, positional, named)
    return Call(task, positional, named, context)
