"""The arguments of a function that stands behind decorators (``functools.wraps``).

Rules: a decorator that passes on all its arguments may add some itself, at the front or by name. Arguments that fit the
function with some of its parameters added are converted by its type hints. Arguments that fit in no such way may have a
meaning for the decorator, and pass unchanged, as in Celery.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any

from celeriac.arguments.convert import POSITIONAL, Arguments
from celeriac.arguments.hints import Through
from celeriac.errors import ArgumentError

PASSING_ON = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments_of(
    function: Callable[..., Any],
    *,
    bound: bool = False,
    name: str | None = None,
    injected: type | None = None,
    strict: bool = True,
) -> Arguments:
    """Return the parameters of a task's function; see ``Arguments``."""
    target = _behind(function)
    name = name or getattr(function, "__name__", None)

    def made(**supplied: Any) -> Arguments:
        return Arguments(target, bound=bound, name=name, injected=injected, strict=strict, **supplied)

    if target is function or not strict:
        return made()
    return WrappedArguments(target, made)


class WrappedArguments(Arguments):
    """The parameters of a function whose decorator may supply some of them.

    :param made: makes the parameters that are left when some are supplied.
    """

    def __init__(self, function: Callable[..., Any], made: Callable[..., Arguments]) -> None:
        plain = made()
        self.name = plain.name
        self.context_parameter = plain.context_parameter
        self._plain = plain
        places = sum(p.kind in POSITIONAL for p in _signature(function))
        ahead = range(1, places + (plain.context_parameter is None))
        self._readings = [
            plain,
            *(made(supplied=count) for count in ahead),
            made(some_named=True),
            *(made(supplied=count, some_named=True) for count in ahead),
        ]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        reading = self._reading(args, kwargs)
        return (list(args), dict(kwargs)) if reading is None else reading.bind(args, kwargs)

    def check(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, through: Through | None = None
    ) -> None:
        reading = self._reading(args, kwargs)
        if reading is not None:
            reading.check(args, kwargs, through=through)

    def check_part(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], through: Through, *, complete: bool
    ) -> None:
        """Check nothing, because it is unknown which parameters these arguments are for."""

    def inject(self, context: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        (self._reading(args, kwargs) or self._plain).inject(context, args, kwargs)

    def _reading(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments | None:
        """Return the first reading that the arguments fit; the last that they fit but for their types."""
        misfit = None
        for reading in self._fitting(args, kwargs):
            try:
                reading.bind(args, kwargs)
            except ArgumentError:
                misfit = reading
            else:
                return reading
        return misfit

    def _fitting(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Arguments]:
        return (reading for reading in self._readings if reading.fits(len(args), kwargs))


def _behind(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the first function, from the outermost decorator inwards, that names its parameters."""
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        wrapped = getattr(function, "__wrapped__", None)
        if not callable(wrapped) or not _passes_on(function):
            return function
        function = MethodType(wrapped, function.__self__) if inspect.ismethod(function) else wrapped
    return function


def _passes_on(function: Callable[..., Any]) -> bool:
    parameters = _signature(function)
    return not parameters or any(parameter.kind in PASSING_ON for parameter in parameters)


def _signature(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    try:
        return tuple(inspect.signature(function, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):  # such as what functools.cache returns
        return ()
