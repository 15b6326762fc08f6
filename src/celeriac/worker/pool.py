"""The contract of a pool: where the body of a plain function runs."""

from __future__ import annotations

from typing import Any, Protocol

from celeriac.context import Context
from celeriac.task import Task


class Pool(Protocol):
    """Runs plain functions beside the event loop."""

    async def call(
        self, task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], context: Context
    ) -> Any:
        """Run the task's function and return its value or raise its exception.

        Cancelling the call gives up waiting; whether the body stops depends on the pool.
        """
        ...

    async def close(self) -> None:
        """Stop; bodies that still run are abandoned (threads) or killed (processes)."""
        ...
