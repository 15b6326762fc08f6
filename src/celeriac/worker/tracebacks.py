"""Leaves the worker's own frames out of the tracebacks that users read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

OWN = str(Path(__file__).parent)


def in_task(error: E) -> E:
    """Cut the frames above the task's function off the error's traceback; all stay where there are no others."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN):
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)
