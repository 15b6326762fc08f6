"""Turns what a task raised into what its caller and the log are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from celeriac.errors import RetryRequested, TaskAborted
from celeriac.wire.failure import format_traceback

E = TypeVar("E", bound=BaseException)

OWN = str(Path(__file__).parent)
ELSEWHERE = "In the child process:\n"


def as_exception(error: BaseException) -> Exception:
    """Return an ordinary exception for whatever a task raised.

    ``SystemExit``, ``KeyboardInterrupt`` and ``GeneratorExit`` mean something to the event loop and to coroutines that
    a task may not say; they become a ``TaskAborted`` that has them as its cause.
    """
    if isinstance(error, Exception):
        return in_task(error)
    aborted = TaskAborted(f"the task raised {type(error).__name__}{error.args!r}")
    aborted.__cause__ = in_task(error)
    return aborted


def in_task(error: E) -> E:
    """Cut the worker's frames above the task's function off the traceback.

    All stay where there are no others, unless a note tells where else it was raised.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN):
        trace = trace.tb_next
    if trace is None and not _raised_elsewhere(error):
        return error
    return error.with_traceback(trace)


def forget_frames(error: BaseException) -> None:
    """Cut an exception, and every other that it carries, off the frames that it came through.

    A frame holds the variables of its function, and often the exception too (``last = error``). Such a circle would
    keep all of them until the collector of cyclic garbage comes by.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        current = left.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        BaseException.with_traceback(current, None)  # a class of the user's may refuse to be set attributes
        left += (current.__cause__, current.__context__)
        if isinstance(current, RetryRequested):
            left.append(current.cause)
        elif isinstance(current, BaseExceptionGroup):
            left += current.exceptions


def place_of(raised: BaseException) -> str:
    """Return a note on where it was raised, since frames do not travel between processes."""
    return ELSEWHERE + format_traceback(raised).rstrip()


def _raised_elsewhere(error: BaseException) -> bool:
    return any(str(note).startswith(ELSEWHERE) for note in getattr(error, "__notes__", ()))
