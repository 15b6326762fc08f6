"""Converts decoded values to the types that hints ask for.

Rules: this module is pure. msgspec converts; this module knows which hints msgspec supports, and handles the others. A
value whose hint cannot be checked passes unchanged.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from inspect import isroutine
from pathlib import PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from celeriac.arguments.records import changed, is_flat, is_record, names_records
from celeriac.errors import EncodeError
from celeriac.wire.models import is_model, load_model, problem

PATH = re.compile(r" - at `(?:key` in `)?\$(.*)`$")


Through: TypeAlias = Callable[[Any], Any]
"""Writes a value and reads it again."""


class Mismatch(Exception):
    """A value does not fit a hint. :param at: where in the value, such as ``[2].price``; empty for the value itself."""

    def __init__(self, problem: str, at: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.at = at


class Hint:
    """One type hint, compiled once.

    :param hint: the annotation, resolved.
    :ivar native: the hint that msgspec gets in its place; ``Any`` where msgspec does not support all of it.
    :ivar names_records: whether values may hold records, which travel without the name of their class.
    """

    __slots__ = ("_alternatives", "_sure", "checked", "hint", "names_records", "native")

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        self._alternatives: tuple[Hint, ...] = ()
        self.native: Any = Any
        self.checked = not _means_anything(hint)
        if self.checked and _msgspec_can(hint):
            self.native = hint
        elif self.checked:
            self._alternatives = tuple(Hint(member) for member in _members(hint))
            self.checked = isinstance(hint, type) or bool(self._alternatives)
        self.names_records = names_records(hint)
        plain = self.plain
        # A model is looked at when it is encoded; in a record of plain fields nothing can change.
        sure = self.names_records and is_record(plain) and (is_model(plain) or is_flat(plain))
        self._sure = plain if sure else None

    def convert(self, value: Any) -> Any:
        """Return the value as the hint has it. Raises ``Mismatch``."""
        if not self.checked:
            return value
        if self._alternatives:
            return self._first_that_fits(value)
        if self.native is Any:
            return _instance(self.hint, value)
        try:
            return msgspec.convert(value, self.native, dec_hook=foreign, str_keys=True)
        except msgspec.ValidationError as error:
            try:
                return self._second_chance(value, error)
            except RecursionError:
                raise _mismatch(error) from None
        except RecursionError:
            raise Mismatch("nested too deeply") from None

    def require_same(self, value: Any, name: str, through: Through) -> None:
        """Raise ``EncodeError`` when a record in a converted value would arrive as another than it is.

        :param name: what the value is called in the error.
        :param through: returns a value as it arrives, before it is converted.
        """
        if not self.names_records or (self._sure is not None and type(value) is self._sure):
            return
        decoded = through(value)
        try:
            found = self.convert(decoded)
        except Mismatch:
            found = decoded
        if reason := changed(value, found, name):
            raise EncodeError(f"{reason}; name its own class in the type hint, or send its parts")

    def _second_chance(self, value: Any, error: msgspec.ValidationError) -> Any:
        hint = self.plain
        if isinstance(hint, type) and _is_instance(value, hint):
            return value  # a bool where an int is asked for, an Enum, a subclass
        try:
            if hint is datetime and isinstance(value, str):
                return datetime.fromisoformat(value)
            if hint is timedelta and isinstance(value, int | float) and not isinstance(value, bool):
                return timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise _mismatch(error) from None
        simple = _simplified(value)
        if simple is value:
            raise _mismatch(error) from None
        try:
            return msgspec.convert(simple, self.native, dec_hook=foreign, str_keys=True)
        except msgspec.ValidationError:
            raise _mismatch(error) from None

    def _first_that_fits(self, value: Any) -> Any:
        for alternative in self._alternatives:
            plain = alternative.plain
            if isinstance(plain, type) and type(value) is plain:
                return value
        for alternative in self._alternatives:
            try:
                return alternative.convert(value)
            except Mismatch:
                continue
        names = " | ".join(_name(alternative.hint) for alternative in self._alternatives)
        raise Mismatch(f"expected {names}, got {type(value).__name__}")

    @property
    def plain(self) -> Any:
        """The class in ``Annotated[X, ...]`` without constraints, ``X | None`` and ``X``."""
        hint = self.hint
        if get_origin(hint) is Annotated and not any(
            isinstance(meta, msgspec.Meta) for meta in get_args(hint)
        ):
            hint = get_args(hint)[0]
        if get_origin(hint) in (Union, UnionType):
            rest = [member for member in get_args(hint) if member is not NoneType]
            hint = rest[0] if len(rest) == 1 else hint
        return hint


def foreign(kind: Any, value: Any) -> Any:
    """Convert to a class that msgspec does not know: a pydantic model or a path. An instance passes unchanged."""
    if _is_instance(value, kind):
        return value
    if is_model(kind):
        try:
            return load_model(kind, value)
        except ValueError as error:
            raise ValueError(problem(error)) from error
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `{_name(kind)}`, got `{type(value).__name__}`")


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the function's type hints; those that cannot be resolved stay as they are written."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    if not isroutine(function):  # an object that can be called
        function = type(function).__call__
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are code of the user
        return dict(_each_hint(function))


def _each_hint(function: Callable[..., Any]) -> Iterable[tuple[str, Any]]:
    names = getattr(function, "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: annotation})
        try:
            yield name, get_type_hints(one, globalns=names, include_extras=True)[name]
        except Exception:  # noqa: BLE001 - as above
            yield name, annotation


def _means_anything(hint: Any) -> bool:
    return hint is Any or hint is object or isinstance(hint, str | TypeVar)


def _msgspec_can(hint: Any) -> bool:
    try:
        msgspec.convert(None, hint, dec_hook=foreign)
    except msgspec.ValidationError:
        return True
    except Exception:  # noqa: BLE001 - what a hint cannot be used for, it is not used for
        return False
    return True


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else ()


def _instance(kind: type, value: Any) -> Any:
    if _is_instance(value, kind):
        return value
    raise Mismatch(f"expected {_name(kind)}, got {type(value).__name__}")


def _is_instance(value: Any, kind: Any) -> bool:
    try:
        return isinstance(value, get_origin(kind) or kind)
    except TypeError:
        return True  # a Protocol, for one: cannot be checked, so it passes


def _simplified(value: Any) -> Any:
    """Return the value with whole floats as ints and enum members as their values; itself when there are none.

    Go's JSON writes 2 as 2.0 where it holds a float64, and a sender's Enum arrives as its value.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        changed = {_simplified(key): _simplified(item) for key, item in value.items()}
        return changed if any(changed.get(key) is not item for key, item in value.items()) else value
    if isinstance(value, list | tuple | set | frozenset):
        items = [_simplified(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _mismatch(error: msgspec.ValidationError) -> Mismatch:
    text = str(error)
    at = ""
    if found := PATH.search(text):
        at, text = found[1], text[: found.start()]
    text = text.replace("`", "")
    return Mismatch(text[:1].lower() + text[1:], at)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else reprlib.repr(hint).replace("typing.", "")
