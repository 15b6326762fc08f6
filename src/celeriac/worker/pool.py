"""The contract of a pool: where the body of a plain function runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol, runtime_checkable

import msgspec

from celeriac.context import Context
from celeriac.worker.concluding import Conclusion
from celeriac.worker.runnable import Runnable


class NotBegun(Exception):
    """A call that was placed was taken back before its function began, or its message could not be acknowledged."""


def _nothing(seconds: float = 0.0) -> None:
    """Stand in for a callback that was not given."""


class Call(msgspec.Struct, eq=False):
    """One call of a task's function, with its arguments as that takes them.

    :param soft: seconds after which the task's ``soft_error`` is raised in the function, ``None`` for never.
    :param conclusion: lets the function hand over its ending; ``None`` where the worker waits for it to return.
    :param hard: seconds after which the function is abandoned, ``None`` for never.
    :ivar begun: called when the function of a call that was placed has begun.
    :ivar ended: called with the seconds that the function took when it has ended, if the pool knows that before its
        ending is dealt with.
    :ivar delegate: a pickled ``Delegate`` and the tag by which the process that runs a placed call acknowledges its
        message, before the function; ``None`` where that is not its task, and once it has done so.
    :ivar placed: what the pool knows of a call that was placed.
    """

    task: Runnable
    args: list[Any]
    kwargs: dict[str, Any]
    context: Context
    soft: float | None = None
    conclusion: Conclusion | None = None
    hard: float | None = None
    begun: Callable[[], None] = _nothing
    ended: Callable[[float], None] = _nothing
    delegate: tuple[bytes, str] | None = None
    placed: Any = None

    def limit(self) -> None:
        """Count the limits from now on: tell the function's context when the nearer one ends."""
        limits = [limit for limit in (self.soft, self.hard) if limit is not None]
        if limits:
            self.context.deadline = monotonic() + min(limits)


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

        Returns a ``Paused`` where the function has handed over its ending, and waits. Raises ``NotBegun`` where the
        message of a call with a delegate could not be acknowledged.
        """
        ...

    def resize(self, limit: int) -> None:
        """Run at most so many functions at once; those above it that run already go on."""
        ...

    async def close(self) -> None:
        """Stop; bodies that still run are abandoned (threads) or killed (processes)."""
        ...


@runtime_checkable
class PlacingPool(Pool, Protocol):
    """A pool that can be given calls before there is room for them, so that it goes on without a pause."""

    def places(self, busy: int) -> int:
        """Return how many calls it may have so while so many run."""
        ...

    async def place(self, call: Call) -> bool:
        """Give it a call; return whether it took it, once the function has begun. ``call`` must follow then.

        Raises ``NotBegun`` where the call was taken back before: it waited too long, or by ``recall``.
        """
        ...

    def recorded(self, call: Call) -> None:
        """Note that all is over with a call that was placed, its result included."""
        ...

    def recall(self, call: Call | None = None) -> None:
        """Take back this call, or all, as far as they have not begun."""
        ...
