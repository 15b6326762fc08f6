"""Fits the arguments of a call to the task's signature and type hints.

Rules: this module is pure. Each task's hints are compiled once. An error is one line that names task and parameter.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from celeriac.arguments.constraints import with_constraints
from celeriac.arguments.hints import Hint, Mismatch, Through, annotations_of, foreign
from celeriac.errors import ArgumentError, EncodeError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

PLAIN = (str, int, float, bool)
"""Classes whose values are what a hint of that class asks for, and need no conversion."""


class Shape(msgspec.Struct, frozen=True):
    """What a number of positional arguments alone are converted to.

    :param exact: the classes of arguments that pass unchanged; ``None`` where one is no plain class.
    :param record: a struct that the whole list is converted to at once; ``None`` where no argument needs that.
    :param others: the hints that msgspec does not support, each with its place.
    """

    exact: list[type] | None
    record: type[msgspec.Struct] | None
    others: tuple[tuple[int, Hint], ...]


class Arguments:
    """The parameters of a task's function.

    :param function: the user's function; the ``self`` of a method is no parameter.
    :param bound: whether the first parameter is the context (``bind=True``), whatever its annotation.
    :param name: the task's name, for messages.
    :param injected: the class whose parameter is filled by the worker and never sent.
    :param strict: whether arguments are checked and converted at all.
    :param supplied: how many of the first parameters a decorator of the function fills.
    :param some_named: whether parameters without a default may be missing, because a decorator fills them by name.
    :ivar context_parameter: name of the parameter that gets the context, or ``None``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        bound: bool = False,
        name: str | None = None,
        injected: type | None = None,
        strict: bool = True,
        supplied: int = 0,
        some_named: bool = False,
    ) -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self._strict = strict
        annotations = annotations_of(function)
        parameters = list(_parameters(function))
        context = _context(parameters, annotations, bound, injected)
        for filled in [p for p in parameters if p is not context and p.kind in POSITIONAL][:supplied]:
            parameters.remove(filled)
        self.context_parameter = context.name if context else None
        self._context_at = _position(parameters, context)
        sent = [parameter for parameter in parameters if parameter is not context]
        self._hints = {p.name: Hint(_annotation(p, annotations)) for p in sent}
        self._positional = [p for p in sent if p.kind in POSITIONAL]
        self._by_name = {p.name for p in sent if p.kind in BY_NAME}
        self._required = [
            p.name
            for p in sent
            if p.default is p.empty and p.kind in (*POSITIONAL, p.KEYWORD_ONLY) and not some_named
        ]
        self._rest = next((p.name for p in sent if p.kind is p.VAR_POSITIONAL), None)
        self._named_rest = next((p.name for p in sent if p.kind is p.VAR_KEYWORD), None)
        self._records = any(hint.names_records for hint in self._hints.values())
        self._shapes: dict[int, Shape] = {}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments converted, in containers of their own.

        Raises ``ArgumentError``: ``add() argument 'x': expected int, got str ('two')``.
        """
        if not self._strict:
            return list(args), dict(kwargs)
        if not kwargs:
            shape = self._shapes.get(len(args)) or self._shape(len(args))
            if list(map(type, args)) == shape.exact or (shape.record is None and not shape.others):
                return list(args), {}
            try:
                if shape.record is None:
                    converted = list(args)
                else:
                    record = msgspec.convert(args, shape.record, dec_hook=foreign, str_keys=True)
                    converted = list(msgspec.structs.astuple(record))
                for index, hint in shape.others:
                    converted[index] = hint.convert(converted[index])
                return converted, {}
            except (msgspec.ValidationError, Mismatch, RecursionError):
                pass  # one at a time finds out which, and forgives more
        return self._bind_each(args, kwargs)

    def check(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, through: Through | None = None
    ) -> None:
        """Raise ``ArgumentError`` where a worker would, before anything is sent. Objects of the hinted classes pass.

        :param through: returns a value as it arrives; with it, raise ``EncodeError`` where an object would arrive as
            another one.
        """
        bound, named = self.bind(args, kwargs)
        if through is not None and self._records and self._strict:
            for index, value in enumerate(bound):
                self._hint_at(index).require_same(value, self._called(self._name_at(index)), through)
            for name, value in named.items():
                self._hint_named(name).require_same(value, self._called(name), through)

    def check_part(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], through: Through, *, complete: bool
    ) -> None:
        """Raise ``EncodeError`` for an object among some of the arguments that would arrive as another one.

        :param through: returns a value as it arrives.
        :param complete: no value of an earlier task will come before these.
        """
        if not self._records or not self._strict:
            return
        for index, value in enumerate(args):
            self._check_place(value, [index] if complete else [index, index + 1], through)
        for name, value in kwargs.items():
            if name in self._by_name or self._named_rest is not None:
                self._hint_named(name).require_same(value, self._called(name), through)

    def _check_place(self, value: Any, places: Sequence[int], through: Through) -> None:
        """Raise what the last of the places that take the value raises, when none keeps what it is."""
        refused: EncodeError | None = None
        for index in places:
            if index >= len(self._positional) and self._rest is None:
                continue
            try:
                hint = self._hint_at(index)
                hint.require_same(hint.convert(value), self._called(self._name_at(index)), through)
                return
            except Mismatch:
                continue
            except EncodeError as error:
                refused = error
        if refused is not None:
            raise refused

    def _called(self, parameter: str) -> str:
        return f"{self.name}() argument '{parameter}'"

    def fits(self, count: int, kwargs: Mapping[str, Any]) -> bool:
        """Whether so many positional arguments, and these by name, have their parameters; whatever their types."""
        try:
            self._check_names(count, kwargs)
        except ArgumentError:
            return False
        return True

    def inject(self, context: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Put the context where the function expects it, among bound arguments."""
        if self._context_at is not None and len(args) >= self._context_at:
            args.insert(self._context_at, context)
        elif self.context_parameter is not None:
            kwargs[self.context_parameter] = context

    def _shape(self, count: int) -> Shape:
        """Compile what ``count`` positional arguments alone are converted to."""
        self._check_names(count, {})
        hints = [self._hint_at(index) for index in range(count)]
        others = tuple((i, hint) for i, hint in enumerate(hints) if hint.checked and hint.native is Any)
        record: type[msgspec.Struct] | None = None
        if any(hint.native is not Any for hint in hints):
            fields = [(f"a{index}", hint.native) for index, hint in enumerate(hints)]
            record = msgspec.defstruct("Record", fields, array_like=True, forbid_unknown_fields=True)
        plain = [hint.plain for hint in hints]
        shape = Shape(plain if all(map(_is_plain, plain)) else None, record, others)
        if count <= len(self._positional):  # the sender chooses the length of *args: those are not kept
            self._shapes[count] = shape
        return shape

    def _bind_each(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        self._check_names(len(args), kwargs)
        converted = [self._convert(self._name_at(i), self._hint_at(i), value) for i, value in enumerate(args)]
        named = {name: self._convert(name, self._hint_named(name), value) for name, value in kwargs.items()}
        return converted, named

    def _convert(self, parameter: str, hint: Hint, value: Any) -> Any:
        try:
            return hint.convert(value)
        except Mismatch as mismatch:
            given = "" if mismatch.at else f" ({reprlib.repr(value)})"
            problem = f"{self._called(parameter + mismatch.at)}: {mismatch.problem}{given}"
            raise ArgumentError(problem) from None

    def _check_names(self, count: int, kwargs: Mapping[str, Any]) -> None:
        places = len(self._positional)
        if count > places and self._rest is None:
            raise ArgumentError(f"{self.name}() takes {_arguments(places)} but {count} were given")
        filled = {p.name for p in self._positional[:count]}
        for name in kwargs:
            if name in self._by_name:
                if name in filled:
                    raise ArgumentError(f"{self.name}() got argument '{name}' twice")
            elif self._named_rest is None:
                raise ArgumentError(f"{self.name}() got an unexpected argument '{name}'")
        missing = [name for name in self._required if name not in filled and name not in kwargs]
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            raise ArgumentError(f"{self.name}() is missing the argument{'s' if missing[1:] else ''} {names}")

    def _name_at(self, index: int) -> str:
        return self._positional[index].name if index < len(self._positional) else f"*{self._rest}"

    def _hint_at(self, index: int) -> Hint:
        return self._hints[
            self._positional[index].name if index < len(self._positional) else self._rest or ""
        ]

    def _hint_named(self, name: str) -> Hint:
        return self._hints[name if name in self._by_name else self._named_rest or ""]


class Returns:
    """The value that a task's function is annotated to return."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._hint = Hint(annotations_of(function).get("return", Any))
        self.names_records = self._hint.names_records

    def require_same(self, value: Any, through: Through) -> None:
        """Raise ``EncodeError`` when a record in the returned value would arrive as another one.

        :param through: returns a value as it arrives.
        """
        self._hint.require_same(value, "the returned value", through)

    def convert(self, value: Any) -> Any:
        """Return the decoded value as the annotation has it; as it is, where it does not fit."""
        try:
            return self._hint.convert(value)
        except Mismatch:
            return value


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    try:
        return tuple(inspect.signature(function, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):  # some builtins do not tell: anything goes
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return tuple(inspect.Parameter(name, kind) for name, kind in kinds)


def _annotation(parameter: inspect.Parameter, annotations: Mapping[str, Any]) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    hint = with_constraints(annotations.get(parameter.name, Any))
    if parameter.default is not None:
        return hint
    try:
        return hint | None  # what `x: str = None` means, though it does not say so
    except TypeError:  # what could not be resolved, or is no type
        return hint


def _is_plain(hint: Any) -> bool:
    return any(hint is one for one in PLAIN)


def _context(
    parameters: Sequence[inspect.Parameter],
    annotations: Mapping[str, Any],
    bound: bool,
    injected: type | None,
) -> inspect.Parameter | None:
    if bound:
        if not parameters or parameters[0].kind not in POSITIONAL:
            raise ArgumentError(
                "bind=True gives the task its context first, but the function takes no argument"
            )
        return parameters[0]
    return next((p for p in parameters if injected and _asks_for(annotations.get(p.name), injected)), None)


def _asks_for(hint: Any, injected: type) -> bool:
    if isinstance(hint, str):  # imported for type checkers only, so it could not be resolved
        return hint.rpartition(".")[2] == injected.__name__
    return hint is injected or injected in get_args(hint)


def _position(parameters: Sequence[inspect.Parameter], context: inspect.Parameter | None) -> int | None:
    """Return the place of the context among the positional arguments."""
    if context is None or context.kind not in POSITIONAL:
        return None
    return parameters.index(context)


def _arguments(count: int) -> str:
    return "no arguments" if count == 0 else f"{count} argument{'s' if count > 1 else ''}"
