"""Tells which exceptions of a stored result may be raised in the caller's process.

Rules: a class that means more than a failure is refused, since raising it would steer other code: cancellation, signals
of futures, queues, threads and debuggers, and the exceptions by which a task chooses its ending, here and in Celery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from celeriac.errors import DeliveryLost, EndingRequested

_REFUSED = (DeliveryLost, EndingRequested, StopAsyncIteration, StopIteration)

_CANCELLATION = frozenset({"Cancelled", "CancelledError"})
"""The names of classes by which libraries cancel."""

_CONTROL: Mapping[str, frozenset[str]] = {
    "_queue": frozenset({"Empty"}),
    "asyncio": frozenset(
        {"BrokenBarrierError", "InvalidStateError", "QueueEmpty", "QueueFull", "QueueShutDown"}
    ),
    "bdb": frozenset({"BdbQuit"}),
    "celery": frozenset({"TaskPredicate"}),
    "click": frozenset({"Abort", "Exit"}),
    "concurrent": frozenset({"BrokenExecutor", "InvalidStateError"}),
    "queue": frozenset({"Empty", "Full", "ShutDown"}),
    "threading": frozenset({"BrokenBarrierError"}),
    "unittest": frozenset({"SkipTest"}),
}
"""By package, so that nothing has to be imported; subclasses are meant too."""


def may_be_raised(kind: Any) -> TypeGuard[type[Exception]]:
    """Whether this is a class of exceptions that means nothing but that something failed."""
    if not isinstance(kind, type) or not issubclass(kind, Exception) or issubclass(kind, _REFUSED):
        return False
    return not any(map(_steers, kind.__mro__))


def _steers(kind: type) -> bool:
    package, _, rest = str(kind.__module__).partition(".")
    if package == "celeriac":
        return rest != "errors"  # what modules say to each other
    return kind.__name__ in _CANCELLATION or kind.__name__ in _CONTROL.get(package, ())
