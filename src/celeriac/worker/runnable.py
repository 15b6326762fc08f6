"""The contract of everything that a worker can call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from celeriac.arguments.convert import Arguments, Returns
from celeriac.client.conduct import Conduct
from celeriac.client.task import TaskOptions


class Runnable(Protocol):
    """A task that a worker can call: one of the app, a built-in one, or an errback."""

    @property
    def name(self) -> str:
        """The name that messages carry."""
        ...

    @property
    def function(self) -> Callable[..., Any]:
        """The user's function."""
        ...

    @property
    def options(self) -> TaskOptions:
        """The options that the task was defined with."""
        ...

    @property
    def conduct(self) -> Conduct:
        """The rules by which it ends."""
        ...

    @property
    def arguments(self) -> Arguments:
        """Checks and converts the function's arguments."""
        ...

    @property
    def returns(self) -> Returns:
        """Converts the function's return value."""
        ...

    def require_same(self, value: Any) -> None:
        """Raise ``EncodeError`` for a value that holds a record which JSON would change on its way."""
        ...

    @property
    def bind(self) -> bool:
        """Whether the first argument is the context."""
        ...

    @property
    def is_coroutine(self) -> bool:
        """Whether the function runs on the event loop, rather than in the pool."""
        ...
