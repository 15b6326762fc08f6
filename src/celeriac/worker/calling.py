"""Calls a task: the one place where a worker runs a user's function."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
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
        positional, named = task.arguments.bind(args, kwargs)
        if task.arguments.context_parameter is not None:
            task.arguments.inject(context, positional, named)
        return await self(Call(task, positional, named, context))

    async def __call__(self, call: Call) -> Any:
        """Return what the function returns, or raise what it raises."""
        value = await self.begin(call)
        return await self.go_on(call, value) if type(value) is CoroutineType else value

    def begin(self, call: Call) -> Awaitable[Any]:
        """Return what is to be awaited at once, and gives what the function returns or raises.

        A value that is a coroutine has yet to run: see ``go_on``. Where the call lets the function hand over its
        ending, the value may be a ``Paused``.
        """
        soft, hard = call.soft, call.hard
        if call.task.is_coroutine:
            CURRENT.set(call.context)
            if call.conclusion is not None:
                CONCLUSION.set(call.conclusion)
            body = call.task.function(*call.args, **call.kwargs)
        else:
            body, soft = self._pool.call(call), None
        return body if soft is None and hard is None else bounded(body, soft, hard)

    async def go_on(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the coroutine that a function returned: such a function wraps a coroutine function, as decorators do."""
        CURRENT.set(call.context)
        soft, hard = call.soft, call.hard
        return await (coroutine if soft is None and hard is None else bounded(coroutine, soft, hard))
