"""An exception as Celery stores it, without ever importing what it reads.

Rules: neither writing nor reading raises, whatever the exception or the stored form. Celeriac's own exceptions are
stored under names that a Celery client knows, and are read as celeriac's again. An exception that would end the
reader's process, or confuse its event loop, is read as ``RemoteError``.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import msgspec

from celeriac.errors import (
    ChordError,
    EncodeError,
    Reject,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskNotFound,
    TaskRevoked,
    TimeLimitExceeded,
    WireError,
    WorkerLost,
)
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.preview import preview
from celeriac.wire.raisable import may_be_raised

_CELERY_NAMES: dict[type[BaseException], tuple[str, str]] = {
    TaskNotFound: ("celery.exceptions", "NotRegistered"),
    ChordError: ("celery.exceptions", "ChordError"),
    TaskRevoked: ("celery.exceptions", "TaskRevokedError"),
    SoftTimeLimitExceeded: ("billiard.exceptions", "SoftTimeLimitExceeded"),
    TimeLimitExceeded: ("billiard.exceptions", "TimeLimitExceeded"),
    WorkerLost: ("billiard.exceptions", "WorkerLostError"),
    Reject: ("celery.exceptions", "Reject"),
}
_OWN_CLASSES = {name: own for own, (_, name) in _CELERY_NAMES.items() if own is not Reject}
_CELERY_MODULES = frozenset({"celery.exceptions", "billiard.exceptions", None})
_OWN = ("__init__", "__new__", "__str__", "__reduce__", "__reduce_ex__", "__getattr__")
"""Methods by which a class may change its arguments; one that defines none of them is made again from its ``args``."""

_TRACEBACK_LIMIT = 64 * 1024


class Failure(msgspec.Struct, frozen=True):
    """The stored form of an exception: qualified class name, arguments, module.

    :param exc_text: what the exception says, where its class would make another one of the arguments.
    """

    exc_type: str
    exc_message: list[Any] | str = []
    exc_module: str | None = None
    exc_text: str | None = None


def describe(error: BaseException) -> Failure:
    """Return the stored form of ``error`` (Celery: result meta, ``exc_type``, ``exc_message``, ``exc_module``).

    The arguments are those of the constructor, as pickle would call it (``__reduce__``); where the constructor makes
    another exception of them, the text is stored beside them. Arguments that JSON cannot hold become their repr. What
    is no ``Exception`` (``SystemExit``, ``KeyboardInterrupt``) is stored as ``TaskAborted``, so that no client ends by
    re-raising it. Never raises.
    """
    if isinstance(error, RemoteError):
        return Failure(error.type_name, _storable(error.arguments), error.module, error.text)
    if not isinstance(error, Exception):
        return Failure("TaskAborted", [preview(error)], "celeriac.errors")
    if isinstance(error, Reject):
        return Failure("Reject", [error.reason, error.requeue], "celery.exceptions")
    kind = type(error)
    module, name = _CELERY_NAMES.get(kind) or (kind.__module__, kind.__qualname__)
    arguments, text = _arguments(error), None
    if not _is_simple(kind):
        made_of = (arguments, _constructor_arguments(error))
        faithful = next((found for found in made_of if found is not None and _makes(error, found)), None)
        text = (_text(error) or preview(error)) if faithful is None else None
        arguments = arguments if faithful is None else faithful
    return Failure(name, _storable(arguments), module, text)


def name_of(kind: type[BaseException]) -> str:
    """Return the name that a Celery client knows the class by."""
    return _CELERY_NAMES[kind][1] if kind in _CELERY_NAMES else kind.__name__


def rebuild(failure: Any) -> Exception:
    """Return the exception that a stored form stands for, to be raised.

    The class is looked up among the modules that are imported already; nothing is imported. Where there is none, where
    raising it would mean more than a failure, or where its constructor refuses the arguments or makes others of them,
    the answer is a ``RemoteError``. Never raises.

    :param failure: a ``Failure``, an exception, Celery's dictionary, or whatever another writer stored.
    """
    if isinstance(failure, BaseException):
        return failure if may_be_raised(type(failure)) else rebuild(describe(failure))  # type: ignore[return-value]
    if not isinstance(failure, Failure):
        stored = read_failure(failure)
        if stored is None:  # celery.node stores null
            return RemoteError(
                "Exception", ("the writer stored no exception",) if failure is None else (preview(failure),)
            )
        failure = stored
    name, module = failure.exc_type, failure.exc_module
    arguments = (failure.exc_message,) if isinstance(failure.exc_message, str) else tuple(failure.exc_message)
    kind = None if failure.exc_text is not None else _find_class(name, module)
    error = None if kind is None else _made(kind, arguments)
    if error is None or not _consists_of(error, arguments):
        return RemoteError(name, arguments, module, failure.exc_text)
    return error


def read_failure(stored: Any) -> Failure | None:
    """Return the failure that Celery's dictionary holds, or ``None`` if ``stored`` is none.

    Celery 3.1 stores a text for the arguments and no module.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("exc_type"), str):
        return None
    message, module = stored.get("exc_message"), stored.get("exc_module")
    if isinstance(message, tuple):
        message = list(message)
    elif message is None:
        message = []
    elif not isinstance(message, (list, str)):
        message = [message]
    text = stored.get("exc_text")
    return Failure(
        stored["exc_type"],
        message,
        module if isinstance(module, str) else None,
        text if isinstance(text, str) else None,
    )


def format_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` with its causes, as Python prints it; at most 64 KiB, the middle left out."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - printing runs methods of the exception
        text = f"{type(error).__qualname__}: its traceback cannot be shown\n"
    if len(text) <= _TRACEBACK_LIMIT:
        return text
    half = _TRACEBACK_LIMIT // 2
    return f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _arguments(error: BaseException) -> tuple[Any, ...]:
    try:
        arguments = error.args
        return arguments if isinstance(arguments, tuple) else (arguments,)
    except BaseException:  # noqa: BLE001 - a class may make args a property
        return ()


def _is_simple(kind: type) -> bool:
    """Whether the arguments are the whole of such an exception: no class of its own adds to them."""
    if issubclass(kind, ExceptionGroup):
        return True  # stored by the text of its members
    return not issubclass(kind, OSError) and not any(
        name in parent.__dict__ for parent in kind.__mro__ if parent.__module__ != "builtins" for name in _OWN
    )


def _constructor_arguments(error: BaseException) -> tuple[Any, ...] | None:
    """Return what pickle would call the class with."""
    try:
        reduced = error.__reduce__()
        found = reduced[1] if isinstance(reduced, tuple) and reduced[0] is type(error) else None
    except BaseException:  # noqa: BLE001 - a class may define it in any way
        return None
    return found if isinstance(found, tuple) else None


def _made(kind: type[Exception], arguments: tuple[Any, ...]) -> Exception | None:
    try:
        error = kind(*arguments)
    except BaseException:  # noqa: BLE001 - a class from elsewhere may raise anything
        return None
    return error if isinstance(error, kind) else None


def _makes(error: Exception, arguments: tuple[Any, ...]) -> bool:
    """Whether a reader would make the same exception of these arguments: same text, same attributes."""
    stored = tuple(_storable(arguments))
    kept = all(new is old for new, old in zip(stored, arguments, strict=True))
    given = arguments if kept else stored  # that a tuple becomes a list is no other exception
    kind = type(error)
    made = _made(kind, given)
    if made is None or _text(made) != _text(error) or not _consists_of(made, given):
        return False
    if not (differing := _differing(made, error)):
        return True
    # What the constructor makes anew each time, such as a lock or the time, comes from no argument.
    again = _made(kind, given)
    return again is not None and differing <= _differing(made, again)


def _differing(error: Exception, other: Exception) -> set[str]:
    """Return the attributes of ``error`` that the other has not, or as other values."""
    theirs = vars(other)
    return {
        name
        for name, value in vars(error).items()
        if name != "__notes__" and not (name in theirs and _equal(value, theirs[name]))
    }


def _equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except BaseException:  # noqa: BLE001 - values of the user compare as they like
        return False


def _consists_of(error: Exception, arguments: tuple[Any, ...]) -> bool:
    """Whether these arguments are what the exception would be stored with again."""
    own = (_arguments(error), _constructor_arguments(error))
    return any(found is not None and _alike(found, arguments) for found in own)


def _alike(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    if len(a) != len(b):
        return False
    if all(one is other for one, other in zip(a, b, strict=True)) or _equal(a, b):
        return True
    try:
        return encode_json(_storable(a)) == encode_json(_storable(b))
    except EncodeError:
        return False


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_TRACEBACK_LIMIT]
    except BaseException:  # noqa: BLE001 - a class may make its text in any way
        return preview(error)


def _storable(arguments: tuple[Any, ...]) -> list[Any]:
    return [argument if _can_be_stored(argument) else preview(argument) for argument in arguments]


def _can_be_stored(argument: Any) -> bool:
    if argument is None or type(argument) is str or type(argument) is bool:
        return True
    try:
        return _is_same(decode_json(encode_json(argument)), argument)
    except (WireError, RecursionError):
        return False


def _is_same(back: Any, argument: Any) -> bool:
    """Whether JSON gave the argument back; an enum, a set or a record comes back as another value."""
    if isinstance(argument, (list, tuple)):
        return isinstance(back, list) and len(back) == len(argument) and all(map(_is_same, back, argument))
    if isinstance(argument, dict):
        return (
            isinstance(back, dict)
            and back.keys() == argument.keys()
            and all(_is_same(back[key], value) for key, value in argument.items())
        )
    return _equal(back, argument) or (isinstance(argument, float) and argument != argument)  # noqa: PLR0124 - NaN


def _find_class(name: str, module: str | None) -> type[Exception] | None:
    if module in _CELERY_MODULES and name in _OWN_CLASSES:
        found: Any = _OWN_CLASSES[name]
    else:
        found = sys.modules.get("builtins" if module is None else module)
        for part in name.split("."):
            # Not getattr: a module's __getattr__ may import.
            found = getattr(found, "__dict__", {}).get(part)
    return found if may_be_raised(found) else None
