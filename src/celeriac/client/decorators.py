"""The types of what ``app.task`` returns, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from celeriac.client.task import CoroutineTask, FunctionTask
from celeriac.context import Context

P = ParamSpec("P")
R = TypeVar("R")
First = TypeVar("First")


class Untyped:
    """A type that no caller passes: only a parameter without a type (or of type ``object``) accepts it.

    By it, type checkers tell a first parameter without a type from a ``Context``; they do not check the arguments of
    such a task.
    """


class TaskDecorator(Protocol):
    """The decorator that ``app.task(...)`` returns; the ``Context`` parameter is left out of the task's signature."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Untyped, ...], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[..., R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Untyped, ...], R], /) -> FunctionTask[..., R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> FunctionTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...


class BoundTaskDecorator(Protocol):
    """The decorator that ``app.task(bind=True)`` returns: the first parameter, whatever its name, gets the context."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[First, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[First, P], R], /) -> FunctionTask[P, R]: ...
