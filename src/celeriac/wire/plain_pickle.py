"""Reads what is plain in a pickle, and never runs what is not.

Rules: no class is ever looked up or called; each stands in as its name and the arguments it was given. Celery before
5.7 pickled the results in its database tables whatever the serializer, so this is what lets a plain value or a plain
exception of its be read where pickle is not accepted. A pickle is looked through before it is loaded: some bytes of it
may ask for gigabytes of memo, or for a tuple of tuples that takes years to be hashed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Self

from celeriac.errors import ContentRefused, MalformedMessage
from celeriac.wire.failure import Failure
from celeriac.wire.preview import preview

_MOST_SHARED = 32
"""How often a pickle may repeat tuples and sets by reference; what Python pickles repeats hardly any."""

_MOST_NAMES = 1000
_KEEPING = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_REPEATING = frozenset({"GET", "BINGET", "LONG_BINGET"})
_NAMING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})
_NEVER_WRITTEN = frozenset({"DUP", "EXT1", "EXT2", "EXT4"})
_CHEAP = frozenset(
    {
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT",
        "EMPTY_SET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "INST", "OBJ",
    }
)  # fmt: skip
"""What makes a value whose hash takes no time, or that has none."""

_PLAIN = (str, int, float, bool, bytes, type(None))


class _StandIn:
    """An object of a class that was not looked up."""

    name = ""
    module = ""

    def __new__(cls, *arguments: Any, **_: Any) -> Self:
        self = super().__new__(cls)
        self.arguments = arguments
        return self

    arguments: tuple[Any, ...]

    def __setstate__(self, state: Any) -> None:
        """Drop the attributes of the object."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return type("_StandIn", (_StandIn,), {"name": name, "module": module})

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside of it")


def read_plain_pickle(raw: bytes) -> Any:
    """Return a value of None, booleans, numbers, text, bytes, lists, tuples, sets and dicts, or a pickled exception.

    An object at the top comes back as a ``Failure`` of its class name and arguments.

    :raises ContentRefused: the value holds objects.
    :raises MalformedMessage: these bytes are no pickle.
    """
    try:
        _look_through(raw)
        value = _Reader(io.BytesIO(raw)).load()
    except MalformedMessage:
        raise
    except Exception as error:
        raise MalformedMessage(f"not a pickle of plain values: {error!r:.200}") from error
    if isinstance(value, _StandIn):
        return Failure(value.name, [_shown(argument) for argument in value.arguments], value.module)
    _refuse_objects(value)
    return value


def _look_through(raw: bytes) -> None:
    """Raise ``MalformedMessage`` for a pickle that takes too much to load, ``ValueError`` for bytes that are none."""
    kept = names = shared = 0
    costly: set[int] = set()
    before = ""
    for code, argument, _ in pickletools.genops(raw):
        name = code.name
        if name in _KEEPING:
            place = kept if name == "MEMOIZE" else int(argument or 0)
            if place > len(raw):
                raise MalformedMessage(
                    f"not a pickle of plain values: it remembers something as number {place}"
                )
            kept += 1
            (costly.discard if before in _CHEAP else costly.add)(place)
        elif name in _REPEATING:
            shared += int(argument or 0) in costly
        names += name in _NAMING
        if name in _NEVER_WRITTEN or shared > _MOST_SHARED or names > _MOST_NAMES:
            raise MalformedMessage("not a pickle of plain values: it repeats, or names, too much")
        before = name


def _shown(argument: Any) -> Any:
    return argument if isinstance(argument, _PLAIN) else preview(argument)


def _refuse_objects(value: Any) -> None:
    pending = [value]
    seen: set[int] = set()  # a pickled list may hold itself
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
        elif not isinstance(part, _PLAIN):
            kind = f"{part.module}.{part.name}" if isinstance(part, _StandIn) else type(part).__name__
            raise ContentRefused(f"a pickled result holds a {kind}; accept_content would have to name pickle")
