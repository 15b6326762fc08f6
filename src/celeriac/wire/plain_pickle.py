"""Reads what is plain in a pickle, and never runs what is not.

Rules: no class is ever looked up or called; each stands in as its name and the arguments it was given. Celery before
5.7 pickled the results in its database tables whatever the serializer, so this is what lets a plain value or a plain
exception of its be read where pickle is not accepted.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Self

from celeriac.errors import ContentRefused, MalformedMessage
from celeriac.wire.failure import Failure

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
        value = _Reader(io.BytesIO(raw)).load()
    except Exception as error:
        raise MalformedMessage(f"not a pickle of plain values: {error!r:.200}") from error
    if isinstance(value, _StandIn):
        return Failure(value.name, [_shown(argument) for argument in value.arguments], value.module)
    _refuse_objects(value)
    return value


def _shown(argument: Any) -> Any:
    return argument if isinstance(argument, _PLAIN) else repr(argument)


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
