"""Turns an exception of a task into the form that its caller and the log get."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from celeriac.errors import CeleriacError, RetryRequested, TaskAborted
from celeriac.wire.failure import format_traceback

E = TypeVar("E", bound=BaseException)

OWN = str(Path(__file__).parent)
PACKAGE = str(Path(__file__).parent.parent)
EXAMPLES = str(Path(PACKAGE, "cli", "demo_tasks.py"))
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
ELSEWHERE = "In the child process:\n"


def as_exception(error: BaseException) -> Exception:
    """Return an ordinary exception for whatever a task raised.

    ``SystemExit``, ``KeyboardInterrupt`` and ``GeneratorExit`` would stop the event loop or confuse a coroutine, which
    a task must not do; each becomes the cause of a ``TaskAborted``.
    """
    if isinstance(error, Exception):
        return shorten(in_task(error))
    aborted = TaskAborted(f"the task raised {type(error).__name__}{error.args!r}")
    aborted.raised = type(error)
    aborted.__cause__ = shorten(in_task(error))
    return aborted


def in_task(error: E) -> E:
    """Cut the worker's frames above the task's function off the traceback.

    Where the traceback has no other frames, all stay, unless a note says that the error was raised in another process.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN):
        trace = trace.tb_next
    if trace is None and not _raised_elsewhere(error):
        return error
    return error.with_traceback(trace)


def shorten(error: E) -> E:
    """Remove celeriac's own frames from an error of celeriac, and from its causes and contexts.

    The user's frames and the error's own line stay, which tell the cause.
    """
    for each in _chain(error):
        if isinstance(each, CeleriacError):
            _cut_traceback(each)
            cause = each.__cause__ or each.__context__
            if cause is not None and not any(map(_has_frames_of_the_user, _chain(cause))):
                each.__cause__ = None  # and its context is not shown either
    return error


def _cut_traceback(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and _is_own(trace):
        trace = trace.tb_next
    BaseException.with_traceback(error, trace)
    while trace is not None:
        if trace.tb_next is not None and _is_own(trace.tb_next):
            trace.tb_next = None
        trace = trace.tb_next


def _has_frames_of_the_user(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (_is_own(trace) or file.startswith(LIBRARIES) or file.endswith(".pyx")):
            return True
        trace = trace.tb_next
    return _raised_elsewhere(error)


def _is_own(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return file.startswith(PACKAGE) and file != EXAMPLES


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception with its causes and contexts."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        current = left.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            left += (current.__cause__, current.__context__)
            if isinstance(current, RetryRequested):
                left.append(current.cause)
            elif isinstance(current, BaseExceptionGroup):
                left += current.exceptions


def forget_frames(error: BaseException) -> None:
    """Remove the frames from an exception, its causes and its contexts.

    A frame holds its function's variables, often the exception among them (``last = error``). Such a cycle would keep
    all of them in memory until the next collection of cyclic garbage.
    """
    for each in _chain(error):
        BaseException.with_traceback(each, None)  # a class of the user's may refuse to be set attributes


def place_of(raised: BaseException) -> str:
    """Return a note that says where an exception was raised, since frames do not travel between processes."""
    return ELSEWHERE + format_traceback(raised).rstrip()


def _raised_elsewhere(error: BaseException) -> bool:
    return any(str(note).startswith(ELSEWHERE) for note in getattr(error, "__notes__", ()))
