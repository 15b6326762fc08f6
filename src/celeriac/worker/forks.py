"""Ends a process that a task forked from the worker, once the task's function returns or raises in that process.

Rules: a forked copy of the worker must not go on as a worker. It shares the worker's connections, event loop
descriptors and messages, so the servers would take whatever it sends for the worker's own words.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from celeriac.errors import TaskAborted


class Forks:
    """Counts forks: ``count`` stays the same in one process, and differs in every process that was forked from it."""

    def __init__(self) -> None:
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


FORKS = Forks()
"""The one count of this process: a function that is registered with ``os`` can never be removed again."""


def end_copy(error: BaseException | None) -> NoReturn:
    """End this process as Python ends a program.

    :param error: what the task's function raised in it.
    """
    leaving = error.__cause__ if isinstance(error, TaskAborted) else error
    code = 0
    if isinstance(leaving, SystemExit):
        said = leaving.code
        code = said if isinstance(said, int) else int(said is not None)
        if isinstance(said, str):
            print(said, file=sys.stderr)  # noqa: T201 - as Python does
    elif leaving is not None:
        code = 1
        traceback.print_exception(leaving)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
