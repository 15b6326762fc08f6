"""Runs plain functions in the event loop's own thread, one at a time; the loop waits for each."""

from __future__ import annotations

from typing import Any

from celeriac.context import Context
from celeriac.task import Task


class Solo:
    """For functions that must run in the main thread, and for debugging."""

    async def call(
        self, task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], context: Context
    ) -> Any:
        """Run the function here and now."""
        return task.function(*args, **kwargs)

    async def close(self) -> None:
        """Nothing to stop."""
