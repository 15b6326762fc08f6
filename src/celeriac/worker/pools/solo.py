"""Runs plain functions in the event loop's own thread, one at a time; the loop waits for each.

Rules: nothing can interrupt a function here, so time limits have no effect. The loop stands still while a function
runs, so what a function does after its ending comes before that is on record.
"""

from __future__ import annotations

from typing import Any

from celeriac.context import CURRENT
from celeriac.worker.concluding import CONCLUSION
from celeriac.worker.pool import Call


class Solo:
    """For functions that must run in the main thread, and for debugging."""

    can_stop = False
    children = None

    async def call(self, call: Call) -> Any:
        """Run the function here and now."""
        CURRENT.set(call.context)
        if call.conclusion is not None:
            CONCLUSION.set(call.conclusion)
        return call.task.function(*call.args, **call.kwargs)

    def resize(self, limit: int) -> None:
        """Do nothing: this pool always runs one function at a time."""

    async def close(self) -> None:
        """Do nothing: this pool has nothing to stop."""
