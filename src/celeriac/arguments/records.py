"""Finds the records (dataclasses, structs, pydantic models) that would arrive as another class than they were sent as.

Rules: this module is pure. Only records are compared, since a type hint may turn a list into a tuple on purpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

import msgspec

from celeriac.wire.models import is_model


def is_record(kind: Any) -> bool:
    """Whether this is a class whose fields travel as an object without its name."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct) or is_model(kind)
    )


def names_records(hint: Any) -> bool:
    """Whether a type hint names such a class, itself or inside of it."""
    if is_record(hint):
        return True
    if isinstance(hint, type) and (hasattr(hint, "__total__") or hasattr(hint, "_fields")):
        return any(map(names_records, _fields_of(hint)))  # a TypedDict, a NamedTuple
    return any(map(names_records, get_args(hint)))


def is_flat(kind: Any) -> bool:
    """Whether no field of this record may hold another record."""
    hints = list(_fields_of(kind))
    return bool(hints) and not any(hint is Any or hint is object or names_records(hint) for hint in hints)


def changed(sent: Any, found: Any, path: str) -> str | None:
    """Return which record arrives changed, and where; ``None`` if all arrive as they were sent.

    :param found: what the receiver makes of it.
    """
    kind = type(sent)
    if is_record(kind):
        if type(found) is not kind:
            return f"{path}: {kind.__name__} would arrive as {type(found).__name__}"
        if is_model(kind):
            return None if found == sent else f"{path}: {kind.__name__} would arrive as another value"
    pairs = _parts(sent, found)
    return next(filter(None, (changed(a, b, f"{path}{place}") for place, a, b in pairs)), None)


def _parts(sent: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    if is_record(type(sent)):
        for name in _field_names(sent):
            yield f".{name}", getattr(sent, name, None), getattr(found, name, None)
    elif isinstance(sent, Mapping) and isinstance(found, Mapping):
        for (key, a), b in zip(sent.items(), found.values(), strict=False):
            yield f"[{key!r:.100}]", a, b
    elif isinstance(sent, list | tuple) and isinstance(found, list | tuple):
        for index, (a, b) in enumerate(zip(sent, found, strict=False)):
            yield f"[{index}]", a, b


def _field_names(record: Any) -> Iterable[str]:
    if isinstance(record, msgspec.Struct):
        return record.__struct_fields__
    return [field.name for field in dataclasses.fields(record)]


def _fields_of(kind: type) -> Iterable[Any]:
    try:
        return get_type_hints(kind).values()
    except Exception:  # noqa: BLE001 - annotations are code of the user
        return [Any]
