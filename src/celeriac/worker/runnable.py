"""The contract of what a worker can call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from celeriac.arguments.convert import Arguments, Returns
from celeriac.client.task import TaskOptions
from celeriac.context import Context


class Runnable(Protocol):
    """What a worker can call: an app's task, a built-in one, an errback."""

    @property
    def name(self) -> str:
        """The name that messages carry."""
        ...

    @property
    def function(self) -> Callable[..., Any]:
        """What runs."""
        ...

    @property
    def options(self) -> TaskOptions:
        """What was said at the definition."""
        ...

    @property
    def arguments(self) -> Arguments:
        """What the function takes."""
        ...

    @property
    def returns(self) -> Returns:
        """What the function returns."""
        ...

    def require_same(self, value: Any) -> None:
        """Raise ``EncodeError`` where a record in the value would arrive in JSON as another one."""
        ...

    @property
    def bind(self) -> bool:
        """Whether the first argument is the context."""
        ...

    @property
    def is_coroutine(self) -> bool:
        """Whether the function runs on the event loop, rather than in the pool."""
        ...

    def inject(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Put the context among the arguments where the function wants it."""
        ...
