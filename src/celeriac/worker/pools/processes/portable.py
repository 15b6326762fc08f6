"""How an exception travels from a child process to the worker.

Rules: it arrives as an instance of its class, since retry policies go by the class. Its class, its arguments and its
attributes travel each by itself and it is made of them without its constructor, which may want what its arguments do
not tell, or add to its text once more; only a class that says itself how it is pickled is taken at its word. A class
that cannot be imported is replaced by one of the same name below those of its base classes that can.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import msgspec

from celeriac.errors import RemoteError
from celeriac.wire.preview import preview


class Likeness(msgspec.Struct):
    """What stands for an exception. All that is bytes is pickled by itself, and may fail by itself.

    :param whole: it as its class says that it is pickled; ``None`` where that loses something, or it says nothing.
    :param kinds: its class and those above it.
    :param exact: the first of them is its very class.
    :param arguments: its ``args``; what cannot be pickled is replaced by its repr.
    :param attributes: those that can be pickled.
    :param text: what ``str`` says of it.
    """

    whole: bytes | None
    kinds: list[bytes]
    exact: bool
    name: str
    module: str
    arguments: list[bytes]
    attributes: dict[str, bytes]
    text: str


def portable(error: Exception) -> Likeness:
    """Return what is to be sent for an exception."""
    kind = type(error)
    attributes = {name: portable_value(value) for name, value in vars(error).items()}
    likeness = Likeness(
        whole=None,
        kinds=[data for above in kind.__mro__ if (data := _by_reference(above)) is not None],
        exact=_by_reference(kind) is not None,
        name=kind.__qualname__,
        module=kind.__module__,
        arguments=[portable_value(argument) or pickle.dumps(preview(argument)) for argument in error.args],
        attributes={name: data for name, data in attributes.items() if data is not None},
        text=_text(error),
    )
    if not (_is_plain(kind) and type(restored(likeness)) is kind):
        likeness.whole = _whole(error)
    return likeness


def portable_value(value: Any) -> bytes | None:
    """Return a value pickled, exceptions in it as their likenesses; ``None`` where it cannot be."""
    data = _pickled(value)
    if data is None and isinstance(value, Exception):
        data = pickle.dumps(portable(value))
    if data is None and type(value) in (list, tuple):
        data = pickle.dumps([portable_value(item) or pickle.dumps(preview(item)) for item in value])
        data = pickle.dumps(_Items(data))
    return data


class _Items(msgspec.Struct):
    """Stands for a list of which not all can be pickled as it is."""

    items: bytes


def restored(sent: Likeness) -> Exception:
    """Return the exception for what was sent in its place."""
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
    except Exception:  # noqa: BLE001 - a class of the user's may refuse in any way
        return RemoteError(sent.name, arguments, sent.module, sent.text)


def _value(data: bytes) -> Any:
    value = _unpickled(data)
    if isinstance(value, Likeness):
        return restored(value)
    if isinstance(value, _Items):
        return [_value(item) for item in _unpickled(value.items)]
    return value


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


def _is_plain(kind: type[Exception]) -> bool:
    """Whether arguments and attributes are all there is of it, and it says nothing of how it is pickled."""
    return (
        isinstance(kind.__init__, FunctionType)
        and kind.__reduce__ is BaseException.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
    )


def _whole(error: Exception) -> bytes | None:
    try:
        data = pickle.dumps(error)
        copy = pickle.loads(data)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        return None
    same = (
        type(copy) is type(error) and _text(copy) == _text(error) and vars(copy).keys() == vars(error).keys()
    )
    return data if same else None


def _pickled(value: Any) -> bytes | None:
    try:
        data = pickle.dumps(value)
        pickle.loads(data)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        return None
    return data


def _unpickled(data: bytes) -> Any:
    """Return the value; where only the child can make it, say so."""
    try:
        return pickle.loads(data)  # noqa: S301 - our own bytes
    except Exception as error:  # noqa: BLE001 - its module cannot be imported here
        return f"<cannot be unpickled here: {preview(error)}>"


def _by_reference(kind: type) -> bytes | None:
    return _pickled(kind) if issubclass(kind, Exception) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a class may make its text in any way
        return preview(error)
