"""Ends a process that a task forked from the worker, once the task's function returns or raises in that process.

Rules: a forked copy of the worker must not go on as a worker. It shares the worker's connections, event loop
descriptors and messages, so the servers would take whatever it sends for the worker's own words.

A copy has one thread. Where another thread was writing to a stream when it was made, as the event loop does that logs,
the stream is locked in the copy for ever. So each copy of a process of several threads gets streams of its own.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from celeriac.errors import TaskAborted


class Forks:
    """Counts forks: ``count`` stays the same in one process, and differs in every process that was forked from it."""

    def __init__(self) -> None:
        self.count = 0
        self._threads = 1
        self._streams: list[Any] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._fork, after_in_child=self._forked)

    def _fork(self) -> None:
        self._threads = threading.active_count()

    def _forked(self) -> None:
        self.count += 1
        if self._threads > 1:
            with suppress(Exception):  # a stream of the user's own kind: the copy goes on as it is
                self._streams += renew_streams()


def renew_streams() -> list[Any]:
    """Put a stream over the same descriptor in the place of each that ``sys`` and the handlers of logging write to.

    Returns the old ones. They are to be kept: what ends one writes what it holds, and waits for its lock.
    """
    made: dict[int, tuple[Any, Any]] = {}
    for name in ("stdout", "stderr"):
        setattr(sys, name, _renewed(getattr(sys, name), made))
    named = logging.root.manager.loggerDict.values()
    for logger in (logging.root, *(each for each in named if isinstance(each, logging.Logger))):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.stream = _renewed(handler.stream, made)  # `setStream` writes what the old one holds
    return [old for old, _ in made.values()]


def _renewed(stream: Any, made: dict[int, tuple[Any, Any]]) -> Any:
    """Return a stream in the place of this one; what is no plain text file stays.

    :param made: by the identity of each, the old and the new ones.
    """
    if type(stream) is not io.TextIOWrapper or stream.closed:
        return stream
    if id(stream) not in made:
        new = open(  # noqa: SIM115 - it lasts as long as the process
            stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False
        )
        new.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
        made[id(stream)] = stream, new
    return made[id(stream)][1]


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
