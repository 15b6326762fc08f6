"""A child of the pool: it runs one call after the other until the worker ends it.

Rules: a child ignores SIGINT, SIGTERM and SIGHUP, which a terminal sends to all processes of a group, since the worker
decides when it ends. When the worker ends, in whatever way, so do its children; another worker runs their calls again.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from celeriac.worker.attachments import checked
from celeriac.worker.garbage import Collecting
from celeriac.worker.pools.processes.death import die_with
from celeriac.worker.pools.processes.frames import DONE, READY, Line, unread_end
from celeriac.worker.pools.processes.leaving import Leaving, Left
from celeriac.worker.pools.processes.running import Running
from celeriac.worker.pools.processes.setup import Setup, entered
from celeriac.worker.signals import HEARD_IN_VAIN, SIGNALS, Inheritance

logger = logging.getLogger("celeriac.worker")

ENDS = 3
"""Pipes that a child has."""

INDEX = "CELERIAC_CHILD_INDEX"
"""The variable in which a child finds its number: the lowest, from 0, that no other child of its pool has."""


def live(ends: Sequence[int], server: int, forked: tuple[Setup, Mapping[bytes, Any]] | None) -> NoReturn:
    """Run calls until the worker closes its pipe.

    :param ends: where calls are read, where answers are written, and where those are written that need wake nobody.
    :param server: the process that started this one.
    :param forked: the setup and the tasks that the server has loaded already; ``None`` in a program of its own.
    """
    Inheritance(dict.fromkeys(HEARD_IN_VAIN, signal.SIG_DFL))
    die_with(server)
    leaving = Leaving()
    calls, answers, quiet = ends
    line = Line(calls, answers, _unread_end(calls), quiet)
    told = line.receive()
    if told is None:
        os._exit(0)
    setup, tasks = forked or entered(told[1])
    code = 0
    try:
        with _lifespans(setup) as state:
            running = Running(setup, tasks, state, line, leaving)
            _answer(line, running, Collecting() if setup.collects else None)
    except (OSError, Left):  # the worker is gone, or wants this process to go
        code = 1
    except BaseException:
        code = 1
        logger.exception("a child process could not go on")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    logging.shutdown()
    os._exit(code)


def _answer(line: Line, running: Running, collecting: Collecting | None) -> None:
    while (frame := line.receive()) is not None:
        if frame[0] == READY:
            line.answer(DONE, b"")
        else:
            running.answer(frame[1])
        del frame
        if collecting is not None:
            collecting.look()


def _unread_end(calls: int) -> int:
    try:
        return unread_end(calls)
    except OSError:  # another system's, or none is left: calls are then read one by one
        return -1


@contextmanager
def _lifespans(setup: Setup) -> Iterator[Mapping[str, Any]]:
    """Run the lifespans around the calls; an error of one at its end is only logged, since the calls are over."""
    state: dict[str, Any] = {}
    with ExitStack() as begun:
        for lifespan in pickle.loads(setup.lifespans):  # noqa: S301 - our own bytes
            state |= checked(begun.enter_context(contextmanager(lifespan)()), lifespan)
        yield state


def main() -> NoReturn:
    """Run as a program of its own, which the server starts for ``spawn``."""
    for number in HEARD_IN_VAIN:
        signal.signal(number, _hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    *ends, server = map(int, sys.argv[1:])
    for end in ends:
        os.set_inheritable(end, False)
    live(ends, server, None)


def _hear(number: int, frame: object) -> None:
    """Ignore the signal."""
