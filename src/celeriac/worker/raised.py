"""Turns what a task raised into what its caller and the log are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from celeriac.errors import TaskAborted

E = TypeVar("E", bound=BaseException)

OWN = str(Path(__file__).parent)


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
    """Cut the worker's frames above the task's function off the traceback; all stay where there are no others."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN):
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)
