"""JSON with the types that Celery adds to it.

Rules: a value that plain JSON lacks travels as ``{"__type__": name, "__value__": text}`` (kombu 5.3 and newer), so what
is read is what was written: ``datetime``, ``date``, ``time``, ``Decimal``, ``UUID``, ``bytes``. Containers and records
become lists and objects; a ``timedelta`` (ISO 8601: ``PT90S``) and a path become text, which a type hint turns back.
A pydantic model becomes the object that its class reads back as the same value.
A value that would not come back as what it was is an ``EncodeError`` naming its place.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import json.encoder
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.wire.models import dump_model, is_model
from celeriac.wire.preview import preview

TAG_KEYS = frozenset({"__type__", "__value__"})
"""An object with exactly these keys is a tagged value."""

_KEPT_TYPES = (datetime, date, time, Decimal, UUID, bytes)
_KEY_TYPES = (str, int, float, bool, type(None))

_MOST_DIGITS = 4300
"""Places before or after the point of a decimal: as many as Python reads of an ``int``. A few bytes can name a
number with so many more places that to make an ``int`` of it takes minutes."""


_parse = msgspec.json.Decoder().decode


def encode_json(value: Any, name: str = "value") -> bytes:
    """Return ``value`` as ASCII JSON, as Celery's json serializer reads it.

    :param name: what the value is called in an error.
    :raises EncodeError: naming the path to what cannot be written, such as ``args[1]['k']``.
    """
    try:
        text = "".join(_write(value, 0))
    except BaseException as error:
        raise EncodeError(_explain(value, name) or f"{name}: {preview(error)}") from error
    if "__type__" in text and (reason := _explain(value, name)):
        raise EncodeError(reason)
    return text.encode()


def decode_json(data: bytes | str, parse: Callable[[bytes | str], Any] = _parse) -> Any:
    """Return the value that ``data`` holds; reads what kombu and the standard library's json write, ``NaN`` too.

    :param parse: reads the regular form, as records of the caller's; any other form is read as plain values.
    :raises MalformedMessage: not JSON, nested too deeply, or a tagged value that is unknown or broken.
    """
    tagged = b"__type__" in data if isinstance(data, bytes) else "__type__" in data
    if not tagged:
        try:
            return parse(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # the standard library reads more: NaN, lone surrogates, numbers beyond float
    try:
        return json.loads(data, object_hook=_untag)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"not JSON: {error}") from error


def _reduce(value: Any) -> Any:
    """Return what to write for a value that JSON has no form for."""
    if (tag := _TAGGERS.get(type(value))) is not None:
        return tag(value)
    if (reduce := getattr(value, "__json__", None)) is not None:
        return reduce()
    for kind, tag in _TAGGERS.items():
        if isinstance(value, kind):
            return tag(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, timedelta):
        return msgspec.to_builtins(value)
    if isinstance(value, PurePath):
        return str(value)
    return _as_object(value)


def _as_object(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, builtin_types=_KEPT_TYPES, str_keys=True, enc_hook=_reduce)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if is_model(type(value)):
        return dump_model(value)
    raise TypeError(f"{type(value)} has no JSON form")


def _tag(name: str, value: Any) -> dict[str, Any]:
    return {"__type__": name, "__value__": value}


def _tag_bytes(value: bytes | bytearray | memoryview) -> dict[str, Any]:
    raw = bytes(value)
    try:
        return _tag("bytes", raw.decode())
    except UnicodeDecodeError:
        return _tag("base64", base64.b64encode(raw).decode())


def _tag_decimal(value: Decimal) -> dict[str, Any]:
    return _tag("decimal", str(_checked_decimal(value)))


def _checked_decimal(value: Decimal) -> Decimal:
    """Return the decimal. Raises ``ValueError`` for one that is dangerous to compute with."""
    if value.is_snan() or abs(value.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"a decimal is no signalling NaN and has at most {_MOST_DIGITS} places")
    return value


_TAGGERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    datetime: lambda value: _tag("datetime", value.isoformat()),  # before date, which it also is
    date: lambda value: _tag("date", value.isoformat()),
    time: lambda value: _tag("time", value.isoformat()),
    Decimal: _tag_decimal,
    UUID: lambda value: _tag("uuid", {"hex": value.hex}),
    bytes: _tag_bytes,
    bytearray: _tag_bytes,
    memoryview: _tag_bytes,
}

_UNTAGGERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda text: datetime.fromisoformat(text).date(),
    "time": time.fromisoformat,
    "decimal": lambda text: _checked_decimal(Decimal(text)),
    "uuid": lambda fields: UUID(hex=fields["hex"]),
    "bytes": lambda text: text.encode(),
    "base64": base64.b64decode,
}


def _untag(fields: dict[str, Any]) -> Any:
    if fields.keys() != TAG_KEYS:
        return fields
    name, value = fields["__type__"], fields["__value__"]
    untag = _UNTAGGERS.get(name) if isinstance(name, str) else None
    if untag is None:
        raise MalformedMessage(f"unknown __type__ {name!r:.100}")
    try:
        return untag(value)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise MalformedMessage(f"bad {name} {value!r:.100}: {error}") from error


def _build_writer() -> Callable[[Any, int], Iterable[str]]:
    """Return a function that writes JSON text, without the checks that ``json.dumps`` sets up again on every call.

    Its second argument is 0. A value that contains itself ends in ``RecursionError`` instead of being looked for.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # no C accelerator on this Python
        encoder = json.JSONEncoder(check_circular=False, default=_reduce, separators=(", ", ": "))
        return lambda value, _: encoder.iterencode(value)
    write: Callable[[Any, int], Iterable[str]] = make(
        None, _reduce, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True
    )
    return write


_write = _build_writer()


def _explain(value: Any, name: str) -> str | None:
    """Return why ``value`` cannot be written and where, or ``None`` if it can."""
    try:
        return _find_fault(value, name, ())
    except RecursionError:
        return f"{name}: nested too deeply, or it contains itself"
    except BaseException as error:  # noqa: BLE001 - a value's own methods may raise anything
        return f"{name}: {type(error).__name__} while reading {type(value)}"


def _find_fault(value: Any, path: str, enclosing: tuple[int, ...]) -> str | None:
    if value is None or isinstance(value, (str, float)) or type(value) in _TAGGERS:
        return None
    if isinstance(value, int):
        return _find_fault_in_int(value, path)
    if id(value) in enclosing:
        return f"{path}: contains itself"
    inside = (*enclosing, id(value))
    if isinstance(value, dict):
        return _find_fault_in_dict(value, path, inside)
    if isinstance(value, (list, tuple)):
        faults = (_find_fault(item, f"{path}[{index}]", inside) for index, item in enumerate(value))
        return next(filter(None, faults), None)
    if isinstance(value, tuple(_TAGGERS)) and not hasattr(value, "__json__"):
        return None
    try:
        reduced = _reduce(value)
    except TypeError:
        return f"{path}: {type(value)} cannot be written as JSON"
    except EncodeError as error:
        return f"{path}: {error}"
    return _find_fault(reduced, path, inside)


def _find_fault_in_int(value: int, path: str) -> str | None:
    try:
        int.__repr__(value)
    except ValueError as error:  # Python's limit on the digits it converts
        return f"{path}: {error}"
    return None


def _find_fault_in_dict(value: dict[Any, Any], path: str, inside: tuple[int, ...]) -> str | None:
    if value.keys() == TAG_KEYS:
        return (
            f"{path}: a dict of exactly the keys '__type__' and '__value__' would be read as a tagged value"
        )
    keys = (f"{path}: key of {type(key)}" for key in value if not isinstance(key, _KEY_TYPES))
    items = (_find_fault(item, f"{path}[{key!r:.100}]", inside) for key, item in value.items())
    return next(filter(None, chain(keys, items)), None)
