"""The process that starts the children.

Rules: the server imports the modules that children need once, and runs no task. It has one thread and waits for nothing
but its worker and its children, so that it can fork, kill and reap them at any time. A process with further threads
cannot be forked safely: if a module starts threads on import, each child is a program of its own, as with ``spawn``.
When the worker is gone, the server ends all children.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from celeriac.worker.pools.processes import child
from celeriac.worker.pools.processes.death import die_with
from celeriac.worker.pools.processes.frames import (
    FAILED,
    GONE,
    HEAD,
    KILL,
    STARTED,
    Line,
    read_exactly,
)
from celeriac.worker.pools.processes.leaving import LEAVE
from celeriac.worker.pools.processes.setup import Setup, entered, program
from celeriac.worker.signals import HEARD_IN_VAIN, SIGNALS

logger = logging.getLogger("celeriac.worker")

FORKSERVER, SPAWN = "forkserver", "spawn"

CLEANING_UP = 0.5
"""Seconds that a child which is to end at once has for the ``finally`` blocks of its task."""


class Server:
    """Starts, kills and reaps children as the worker says.

    :param worker: the socket to it.
    :param forked: the setup and the tasks of forked children; ``None`` where each child is a program of its own.
    """

    def __init__(self, worker: socket.socket, forked: tuple[Setup, Mapping[bytes, Any]] | None) -> None:
        self._worker = worker
        self._line = Line(worker.fileno(), worker.fileno())
        self._forked = forked
        self._children: dict[int, int] = {}
        self._indexes: dict[int, int] = {}
        self._doomed: dict[int, float] = {}
        self._wake, woken = socket.socketpair()
        woken.setblocking(False)
        self._woken = woken

    def run(self) -> NoReturn:
        """Carry out the worker's orders until the worker is gone."""
        signal.signal(signal.SIGCHLD, _hear)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._worker, self._wake], [], [], self._until_the_next_dies())
            if self._wake in ready:
                self._wake.recv(4096)
                self._reap()
            if self._worker in ready:
                self._obey()

    def _obey(self) -> None:
        try:
            order, fds, _, _ = socket.recv_fds(self._worker, HEAD.size, child.ENDS)
            if not order:
                self._end()
            order += read_exactly(self._worker, HEAD.size - len(order))
        except (OSError, EOFError):
            self._end()
        kind, number = HEAD.unpack(order)
        if kind == KILL:
            self._doom(number)
        else:
            self._start(number, fds)

    def _start(self, number: int, fds: list[int]) -> None:
        try:
            if len(fds) < child.ENDS:
                raise OSError("too many open files")
            index = next(index for index in count() if index not in self._indexes.values())
            pid = self._begin(fds, index)
        except OSError as error:
            self._tell(FAILED, number, 0, str(error))
        else:
            self._children[number], self._indexes[number] = pid, index
            self._tell(STARTED, number, pid)
        finally:
            for fd in fds:
                os.close(fd)

    def _begin(self, ends: list[int], index: int) -> int:
        if self._forked is None:
            for end in ends:
                os.set_inheritable(end, True)
            command = [*program("child"), *map(str, ends), str(os.getpid())]
            environment = {**os.environ, child.INDEX: str(index)}
            return os.posix_spawn(command[0], command, environment, setsigmask=SIGNALS)
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.environ[child.INDEX] = str(index)
            self._become_child(ends, server)
        return pid

    def _become_child(self, ends: list[int], server: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._worker, self._wake, self._woken):
                end.close()
            assert self._forked is not None
            child.live(ends, server, self._forked)
        finally:
            os._exit(1)

    def _doom(self, number: int) -> None:
        """Ask a child to end, so that its task cleans up after itself, and kill it soon."""
        if number in self._children and number not in self._doomed:
            self._doomed[number] = monotonic() + CLEANING_UP
            os.kill(self._children[number], LEAVE)

    def _until_the_next_dies(self) -> float | None:
        """Kill the children whose time is over; return the seconds until that of the next is."""
        now = monotonic()
        for number in [number for number, end in self._doomed.items() if end <= now]:
            del self._doomed[number]
            self._kill(number)
        return min(self._doomed.values()) - now if self._doomed else None

    def _kill(self, number: int) -> None:
        if number in self._children:  # a reaped child's process id may belong to another process by now
            os.kill(self._children[number], signal.SIGKILL)

    def _reap(self) -> None:
        for number, pid in list(self._children.items()):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                del self._children[number], self._indexes[number]
                self._doomed.pop(number, None)
                self._tell(GONE, number, os.waitstatus_to_exitcode(status))

    def _tell(self, kind: int, number: int, value: int, text: str = "") -> None:
        try:
            self._line.send(kind, pickle.dumps((number, value, text)))
        except OSError:
            self._end()

    def _end(self) -> NoReturn:
        for number in list(self._children):
            with suppress(OSError):
                self._kill(number)
        os._exit(0)


def main() -> NoReturn:
    """Run as the program that a worker starts; it names the socket, how children start, and the worker."""
    be_deaf()
    worker, how = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    die_with(int(sys.argv[3]))
    try:
        _, length = HEAD.unpack(read_exactly(worker, HEAD.size))
        setup = read_exactly(worker, length)
    except (OSError, EOFError):
        os._exit(0)
    forked = None
    if how == FORKSERVER:
        forked = entered(setup)
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            logger.warning(
                "the app's modules start threads when they are imported (%s): child processes are spawned, not forked, "
                "and each imports them anew; start threads in a lifespan",
                names,
            )
            forked = None
        else:
            gc.collect()
            gc.freeze()
    Server(worker, forked).run()


def be_deaf() -> None:
    """Ignore the signals that reach a whole group of processes: the worker decides when this process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in HEARD_IN_VAIN:
        signal.signal(number, _hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _hear(number: int, frame: FrameType | None) -> None:
    """Do nothing: a signal only has to wake the server."""
