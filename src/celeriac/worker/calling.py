"""Calls a task: the one place where a worker runs a user's function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CoroutineType
from typing import Any

from celeriac.context import CURRENT, Context
from celeriac.worker.concluding import CONCLUSION, Conclusion
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
        positional, named = self.bind(task, context, args, kwargs)
        return await self(task, context, positional, named)

    def bind(
        self, task: Runnable, context: Context, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as the function takes them. Raises ``ArgumentError``."""
        positional, named = task.arguments.bind(args, kwargs)
        if task.arguments.context_parameter is not None:
            task.arguments.inject(context, positional, named)
        return positional, named

    async def __call__(
        self,
        task: Runnable,
        context: Context,
        args: list[Any],
        kwargs: dict[str, Any],
        soft: float | None = None,
        hard: float | None = None,
        conclusion: Conclusion | None = None,
        call: Call | None = None,
    ) -> Any:
        """Return what the function returns, or raise what it raises.

        :param soft: seconds after which the function is asked to end.
        :param hard: seconds after which the function is abandoned.
        :param conclusion: lets the function hand over its ending; the answer may then be a ``Paused``.
        :param call: the call of a plain function.
        """
        asked = soft
        if task.is_coroutine:
            CURRENT.set(context)
            if conclusion is not None:
                CONCLUSION.set(conclusion)
            body = task.function(*args, **kwargs)
        else:
            body = self._pool.call(call or Call(task, args, kwargs, context, soft, conclusion))
            soft = None
        value = await body if soft is None and hard is None else await bounded(body, soft, hard)
        if type(value) is CoroutineType:
            # A plain function wraps a coroutine function: the coroutine that it returned has yet to run.
            CURRENT.set(context)
            return await value if asked is None and hard is None else await bounded(value, asked, hard)
        return value
