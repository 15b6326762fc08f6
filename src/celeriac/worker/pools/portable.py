"""How an exception travels from a child process to the worker.

Rules: it arrives as an instance of its class, since retry policies go by the class; where pickle does not keep it, it
is made anew without its constructor, which may want what its arguments do not tell; a class that cannot be imported is
replaced by one of the same name below those of its base classes that can.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.errors import RemoteError
from celeriac.wire.preview import preview


class Likeness(msgspec.Struct):
    """What stands for an exception that pickle does not keep.

    :param kinds: its class and those above it, each pickled by itself.
    :param exact: the first of them is its very class.
    :param arguments: its ``args``; what cannot be pickled is replaced by its repr.
    :param attributes: those that can be pickled.
    :param text: what ``str`` says of it.
    """

    kinds: list[bytes]
    exact: bool
    name: str
    module: str
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]
    text: str


def portable(error: Exception) -> Exception | Likeness:
    """Return the exception itself where pickle keeps it, otherwise its likeness."""
    if _survives(error):
        return error
    kind = type(error)
    kinds = [data for above in kind.__mro__ if (data := _by_reference(above)) is not None]
    attributes = getattr(error, "__dict__", {})
    return Likeness(
        kinds=kinds,
        exact=_by_reference(kind) is not None,
        name=kind.__qualname__,
        module=kind.__module__,
        arguments=tuple(portable_value(argument) for argument in error.args),
        attributes={name: value for name, value in attributes.items() if _can_travel(value)},
        text=_text(error),
    )


def portable_value(value: Any) -> Any:
    """Return the value in a form that can be pickled: exceptions as their likenesses, otherwise, at worst, its repr."""
    if _can_travel(value):
        return value
    if isinstance(value, Exception):
        return portable(value)
    if isinstance(value, list | tuple):
        return [portable_value(item) for item in value]
    return preview(value)


def restored(sent: Any) -> Any:
    """Return the exception, or the value, for what was sent in its place."""
    if isinstance(sent, list):
        return [restored(item) for item in sent]
    if not isinstance(sent, Likeness):
        return sent
    kinds = [kind for data in sent.kinds if (kind := _class_of(data)) is not None]
    arguments = tuple(restored(argument) for argument in sent.arguments)
    try:
        if sent.exact and kinds:
            error = _bare(kinds[0], arguments, sent.attributes)
            if _text(error) == sent.text:
                return error
        return _bare(_stand_in(sent, kinds), arguments, sent.attributes)
    except Exception:  # noqa: BLE001 - a class of the user's may refuse in any way
        return RemoteError(sent.name, arguments, sent.module, sent.text)


def _stand_in(sent: Likeness, kinds: Sequence[type[Exception]]) -> type[Exception]:
    """Return a class of the same name whose instances say what the exception said."""
    lowest = [
        kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)
    ]
    content = {
        "__module__": sent.module,
        "__qualname__": sent.name,
        "__str__": lambda _: sent.text,
        "__reduce__": BaseException.__reduce__,
    }
    name = sent.name.rpartition(".")[2]
    try:
        return type(name, tuple(lowest), content)
    except TypeError:
        return type(name, (kinds[0],), content)


def _bare(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    maker = next(above for above in kind.__mro__ if above.__module__ == "builtins")
    error = maker.__new__(kind, *arguments)
    BaseException.args.__set__(error, arguments)  # type: ignore[attr-defined]
    error.__dict__.update(attributes)
    return error


def _survives(error: Exception) -> bool:
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        return False
    return (
        type(copy) is type(error) and _text(copy) == _text(error) and vars(copy).keys() == vars(error).keys()
    )


def _can_travel(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        return False
    return True


def _by_reference(kind: type) -> bytes | None:
    if not issubclass(kind, Exception):
        return None
    try:
        return pickle.dumps(kind)
    except Exception:  # noqa: BLE001 - a class within a function
        return None


def _class_of(data: bytes) -> type[Exception] | None:
    try:
        kind: type[Exception] = pickle.loads(data)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - its module cannot be imported here
        return None
    return kind


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a class may make its text in any way
        return preview(error)
