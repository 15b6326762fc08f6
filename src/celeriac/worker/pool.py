"""The contract of a pool: where the body of a plain function runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from celeriac.context import Context
from celeriac.worker.concluding import Conclusion
from celeriac.worker.runnable import Runnable


class Call:
    """One call of a plain function.

    :param soft: seconds after which the task's ``soft_error`` is raised in the function, ``None`` for never.
    :param conclusion: lets the function hand over its ending; ``None`` where the worker waits for it to return.
    """

    __slots__ = ("args", "conclusion", "context", "kwargs", "soft", "task")

    def __init__(
        self,
        task: Runnable,
        args: list[Any],
        kwargs: dict[str, Any],
        context: Context,
        soft: float | None = None,
        conclusion: Conclusion | None = None,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.soft = soft
        self.conclusion = conclusion


class Children(Protocol):
    """The child processes of a pool."""

    @property
    def processes(self) -> Sequence[int]:
        """The ids of those that have started."""
        ...

    def process_of(self, context: Context) -> int | None:
        """Return the id of the child that runs the call with this context, ``None`` where none does."""
        ...

    async def fill(self) -> None:
        """Start them before they are needed, where that is wanted; return when they are ready."""
        ...

    def restart(self) -> None:
        """Replace each child, and what it has imported, as soon as it is free."""
        ...


class Pool(Protocol):
    """Runs plain functions beside the event loop."""

    @property
    def can_stop(self) -> bool:
        """Whether cancelling a call stops the function, rather than only the wait for it."""
        ...

    @property
    def children(self) -> Children | None:
        """Its child processes; ``None`` where functions run in this process."""
        ...

    async def call(self, call: Call) -> Any:
        """Run the function and return its value or raise its exception; cancelling gives up waiting.

        Returns a ``Paused`` where the function has handed over its ending, and waits.
        """
        ...

    def resize(self, limit: int) -> None:
        """Run at most so many functions at once; those above it that run already go on."""
        ...

    async def close(self) -> None:
        """Stop; bodies that still run are abandoned (threads) or killed (processes)."""
        ...
