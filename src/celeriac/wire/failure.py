"""An exception as Celery stores it, without ever importing what it reads.

Rules: neither direction raises, whatever the exception or the stored form; celeriac's own endings are stored under the
names that a stock Celery client knows, and come back as celeriac's; what would end the reader's process or confuse its
event loop comes back as ``RemoteError``.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import msgspec

from celeriac.errors import (
    ChordError,
    EncodeError,
    EndingRequested,
    Reject,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskNotFound,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLost,
)
from celeriac.wire.extended_json import encode_json
from celeriac.wire.preview import preview

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
_NEVER_REBUILT = (EndingRequested, StopIteration, StopAsyncIteration)
_TRACEBACK_LIMIT = 64 * 1024


class Failure(msgspec.Struct, frozen=True):
    """The stored form of an exception: qualified class name, arguments, module."""

    exc_type: str
    exc_message: list[Any] | str = []
    exc_module: str | None = None


def describe(error: BaseException) -> Failure:
    """Return the stored form of ``error`` (Celery: result meta, ``exc_type``, ``exc_message``, ``exc_module``).

    Arguments that JSON cannot hold are replaced by their repr. What is no ``Exception`` (``SystemExit``,
    ``KeyboardInterrupt``) is stored as ``TaskAborted``, so that no client ends by re-raising it. Never raises.
    """
    if isinstance(error, RemoteError):
        return Failure(error.type_name, _storable(error.arguments), error.module)
    if not isinstance(error, Exception):
        return Failure("TaskAborted", [preview(error)], "celeriac.errors")
    if isinstance(error, Reject):
        return Failure("Reject", [error.reason, error.requeue], "celery.exceptions")
    kind = type(error)
    module, name = _CELERY_NAMES.get(kind) or (kind.__module__, kind.__qualname__)
    return Failure(name, _storable(_arguments(error)), module)


def rebuild(failure: Any) -> Exception:
    """Return the exception that a stored form stands for, to be raised.

    The class is looked up among the modules that are imported already; nothing is imported. Where there is none, where
    it is no ``Exception``, or where its constructor refuses the arguments, the answer is a ``RemoteError``.
    Never raises.

    :param failure: a ``Failure``, an exception, Celery's dictionary, or whatever another writer stored.
    """
    if isinstance(failure, BaseException):
        return failure if _may_be_raised(type(failure)) else rebuild(describe(failure))  # type: ignore[return-value]
    if not isinstance(failure, Failure):
        stored = read_failure(failure)
        if stored is None:  # celery.node stores null
            return RemoteError(
                "Exception", ("the writer stored no exception",) if failure is None else (preview(failure),)
            )
        failure = stored
    name, module = failure.exc_type, failure.exc_module
    arguments = (failure.exc_message,) if isinstance(failure.exc_message, str) else tuple(failure.exc_message)
    kind = _find_class(name, module)
    if kind is not None:
        try:
            error = kind(*arguments)
        except Exception:  # noqa: BLE001 - a class from elsewhere may raise anything
            return RemoteError(name, arguments, module)
        if isinstance(error, kind):
            return error
    return RemoteError(name, arguments, module)


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
    return Failure(stored["exc_type"], message, module if isinstance(module, str) else None)


def format_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` with its causes, as Python prints it; at most 64 KiB, the middle left out."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - printing runs methods of the exception
        text = f"{type(error).__qualname__}: its traceback cannot be shown\n"
    if len(text) <= _TRACEBACK_LIMIT:
        return text
    half = _TRACEBACK_LIMIT // 2
    return f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _arguments(error: BaseException) -> tuple[Any, ...]:
    try:
        arguments = error.args
        return arguments if isinstance(arguments, tuple) else (arguments,)
    except Exception:  # noqa: BLE001 - a class may make args a property
        return ()


def _storable(arguments: tuple[Any, ...]) -> list[Any]:
    return [argument if _can_be_stored(argument) else preview(argument) for argument in arguments]


def _can_be_stored(argument: Any) -> bool:
    if argument is None or type(argument) is str or type(argument) is bool:
        return True
    try:
        encode_json(argument)
    except EncodeError:
        return False
    return True


def _find_class(name: str, module: str | None) -> type[Exception] | None:
    if module in _CELERY_MODULES and name in _OWN_CLASSES:
        found: Any = _OWN_CLASSES[name]
    else:
        found = sys.modules.get("builtins" if module is None else module)
        for part in name.split("."):
            # Not getattr: a module's __getattr__ may import.
            found = getattr(found, "__dict__", {}).get(part)
    return found if _may_be_raised(found) else None


def _may_be_raised(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NEVER_REBUILT)
