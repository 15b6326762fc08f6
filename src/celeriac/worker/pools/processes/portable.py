"""Brings an exception from a child process to the worker.

Rules: an exception arrives as an instance of its class, since retry policies go by the class. Its class, arguments and
attributes travel separately, and the worker builds it of them without calling its constructor, which might need other
arguments or extend its text a second time. Only a class that defines its own pickling is pickled as it says. A class
that the worker cannot import is replaced by one of the same name, derived from those base classes that it can import.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import msgspec

from celeriac.errors import RemoteError
from celeriac.wire.preview import preview

_DEEPEST = 8


class Likeness(msgspec.Struct):
    """Stands for an exception. Each field of bytes is a pickle of its own, so that one that fails spoils no other.

    :param whole: the exception pickled as its class defines; ``None`` if that loses something, or defines nothing.
    :param kinds: its class and the base classes.
    :param exact: whether the first of them is the exception's own class.
    :param arguments: its ``args``; an argument that cannot be pickled is replaced by its repr.
    :param attributes: the attributes that can be pickled.
    :param text: the exception as ``str`` returns it.
    """

    whole: bytes | None
    kinds: list[bytes]
    exact: bool
    name: str
    module: str
    arguments: list[bytes]
    attributes: dict[str, bytes]
    text: str


def portable(error: Exception, depth: int = _DEEPEST) -> Likeness:
    """Return the likeness that is sent in place of an exception.

    :param depth: levels of what it holds that are taken apart where they cannot be pickled: it may hold itself.
    """
    kind = type(error)
    attributes = {name: portable_value(value, depth) for name, value in vars(error).items()}
    likeness = Likeness(
        whole=None,
        kinds=[data for above in kind.__mro__ if (data := _by_reference(above)) is not None],
        exact=_by_reference(kind) is not None,
        name=kind.__qualname__,
        module=kind.__module__,
        arguments=[
            portable_value(argument, depth) or pickle.dumps(preview(argument)) for argument in error.args
        ],
        attributes={name: data for name, data in attributes.items() if data is not None},
        text=_text(error),
    )
    if not (_is_plain(kind) and type(restored(likeness)) is kind):
        likeness.whole = _whole(error)
    return likeness


def portable_value(value: Any, depth: int = _DEEPEST) -> bytes | None:
    """Return the pickle of a value, with exceptions in it replaced by likenesses; ``None`` where pickling fails."""
    data = _pickled(value)
    if data is not None or depth <= 0:
        return data
    if isinstance(value, Exception):
        return pickle.dumps(portable(value, depth - 1))
    if type(value) not in (list, tuple):
        return None
    data = pickle.dumps([portable_value(item, depth - 1) or pickle.dumps(preview(item)) for item in value])
    return pickle.dumps(_Items(data))


class _Items(msgspec.Struct):
    """Stands for a list in which some items cannot be pickled directly."""

    items: bytes


def restored(sent: Likeness) -> Exception:
    """Return the exception that a likeness stands for."""
    if sent.whole is not None and isinstance(whole := _unpickled(sent.whole), Exception):
        return whole
    kinds = [kind for data in sent.kinds if isinstance(kind := _unpickled(data), type)]
    arguments = tuple(_value(argument) for argument in sent.arguments)
    attributes = {name: _value(data) for name, data in sent.attributes.items()}
    try:
        if sent.exact and kinds:
            error = _bare(kinds[0], arguments, attributes)
            if _text(error) == sent.text:
                return error
        return _bare(_stand_in(sent, kinds), arguments, attributes)
    except BaseException:  # noqa: BLE001 - a class of the user's may refuse in any way
        return RemoteError(sent.name, arguments, sent.module, sent.text)


def _value(data: bytes) -> Any:
    value = _unpickled(data)
    if isinstance(value, Likeness):
        return restored(value)
    if isinstance(value, _Items):
        return [_value(item) for item in _unpickled(value.items)]
    return value


def _stand_in(sent: Likeness, kinds: Sequence[type[Exception]]) -> type[Exception]:
    """Return a class of the same name whose instances have the text of the exception."""
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


def _is_plain(kind: type[Exception]) -> bool:
    """Whether an instance is only arguments and attributes, and its class defines no pickling of its own."""
    return (
        isinstance(kind.__init__, FunctionType)
        and kind.__reduce__ is BaseException.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
    )


def _whole(error: Exception) -> bytes | None:
    try:
        data = pickle.dumps(error)
        copy = pickle.loads(data)  # noqa: S301 - our own bytes
    except BaseException:  # noqa: BLE001 - a class of the user's may fail in any way
        return None
    same = (
        type(copy) is type(error) and _text(copy) == _text(error) and vars(copy).keys() == vars(error).keys()
    )
    return data if same else None


def _pickled(value: Any) -> bytes | None:
    try:
        data = pickle.dumps(value)
        pickle.loads(data)  # noqa: S301 - our own bytes
    except BaseException:  # noqa: BLE001 - a class of the user's may fail in any way
        return None
    return data


def _unpickled(data: bytes) -> Any:
    """Return the value, or a text that says that only the child could unpickle it."""
    try:
        return pickle.loads(data)  # noqa: S301 - our own bytes
    except BaseException as error:  # noqa: BLE001 - its module cannot be imported here
        return f"<cannot be unpickled here: {preview(error)}>"


def _by_reference(kind: type) -> bytes | None:
    return _pickled(kind) if issubclass(kind, Exception) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - a class may make its text in any way
        return preview(error)
