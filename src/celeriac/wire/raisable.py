"""Which exceptions a record may be turned into.

Rules: a class whose raising steers something else than the caller's own ``except`` is refused: cancellation, what
futures, queues, threads and debuggers say to each other, and how a task chooses its ending, here and in Celery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from celeriac.errors import DeliveryLost, EndingRequested

_REFUSED = (DeliveryLost, EndingRequested, StopAsyncIteration, StopIteration)

_CANCELLATION = frozenset({"Cancelled", "CancelledError"})
"""What libraries call their cancellation."""

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
