"""The worker's side of the server: starts it, and through it the children."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from celeriac.clock import set_within
from celeriac.worker.pools.processes.frames import (
    GONE,
    HEAD,
    KILL,
    SETUP,
    START,
    STARTED,
    Inbox,
    pieces,
    received,
    unread_end,
)
from celeriac.worker.pools.processes.handle import ChildEnded, Handle, NotStarted
from celeriac.worker.pools.processes.setup import program
from celeriac.worker.signals import SIGNALS

PACKETS = os.O_DIRECT if sys.platform == "linux" else 0
"""Makes a pipe hand out what was written by one call as a whole, where the system has such pipes."""

END_WITHIN = 5.0
"""Seconds that the children and the server have to end after the request."""


class Launcher:
    """One server and the children that it started.

    :param setup: the setup that each of them gets first.
    :param how: ``forkserver`` or ``spawn``.
    :param on_started: called when a child has started.
    :param on_gone: called when a child is gone, with its exit code, or ``None`` where that is unknown.

    Raises ``OSError`` where the system has no room for the server.
    """

    def __init__(
        self,
        setup: bytes,
        how: str,
        on_started: Callable[[Handle], None],
        on_gone: Callable[[Handle, int | None], None],
    ) -> None:
        self._setup = setup
        self._on_started = on_started
        self._on_gone = on_gone
        self._children: dict[int, Handle] = {}
        self._last = 0
        self._inbox = Inbox()
        self._over = asyncio.Event()
        self._none_left = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._end, theirs = socket.socketpair()
        try:
            self._server = _started([*program("server"), str(theirs.fileno()), how, str(os.getpid())], theirs)
        except BaseException:
            self._end.close()
            raise
        finally:
            theirs.close()
        for piece in pieces(SETUP, setup):
            self._end.sendall(piece)
        self._end.setblocking(False)
        self._loop.add_reader(self._end.fileno(), self._read)

    @property
    def is_over(self) -> bool:
        """Whether the server is gone."""
        return self._over.is_set()

    def start(self) -> Handle:
        """Order a child; it can be called at once. Raises ``OSError`` where the system has no room for pipes."""
        with ExitStack() as made:
            theirs, calls, unread = _pipe_of_packets(made)
            answers, its = _pipe(made)
            quiet, its_quiet = _pipe(made)
            self._last += 1
            socket.send_fds(self._end, [HEAD.pack(START, self._last)], [theirs, its, its_quiet])
            made.pop_all()
        for end in (theirs, its, its_quiet):
            os.close(end)
        child = Handle(self._last, calls, (answers, quiet), unread, self.kill)
        self._children[child.number] = child
        self._none_left.clear()
        child.send(SETUP, self._setup)
        return child

    def kill(self, child: Handle) -> None:
        """End a child at once."""
        if self._children.get(child.number) is child:
            with suppress(OSError):  # the server is gone, and has killed it
                self._end.send(HEAD.pack(KILL, child.number))

    async def wait_for_children(self) -> None:
        """Return when there are no children."""
        while self._children:
            await self._none_left.wait()

    async def close(self) -> None:
        """End all children: those that run a call at once, the others when they have closed what they opened."""
        for child in list(self._children.values()):
            if child.is_busy:
                self.kill(child)
            else:
                child.say_goodbye()
        if self._children:
            await set_within(self._none_left, END_WITHIN)
        if not self.is_over:
            self._end.shutdown(socket.SHUT_WR)
            await set_within(self._over, END_WITHIN)
        if not self.is_over:
            self._server.kill()
            self._ended()

    def _read(self) -> None:
        data = received(self._end.fileno())
        if data is None:
            return
        if not data:
            self._ended()
            return
        for kind, body in self._inbox.feed(data):
            self._heard(kind, *pickle.loads(body))  # noqa: S301 - our own bytes

    def _heard(self, kind: int, number: int, value: int, text: str) -> None:
        child = self._children[number]
        if kind == STARTED:
            child.pid = value
            self._on_started(child)
            return
        del self._children[number]
        if not self._children:
            self._none_left.set()
        if kind == GONE:
            child.close(ChildEnded(_how(value)))
            self._on_gone(child, value)
        else:
            child.close(NotStarted(text))
            self._on_gone(child, None)

    def _ended(self) -> None:
        self._loop.remove_reader(self._end.fileno())
        self._end.close()
        code = self._server.wait()
        self._over.set()
        self._none_left.set()
        children, self._children = self._children, {}
        for child in children.values():
            if child.pid and sys.platform != "linux":  # where they are not killed by the kernel
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            child.close(ChildEnded(f"ended with the process that starts them, exit code {code}"))
            self._on_gone(child, None)


def _pipe(made: ExitStack, flags: int = 0) -> tuple[int, int]:
    """Return the ends for reading and for writing; they are closed with the stack."""
    ends = os.pipe2(flags | os.O_CLOEXEC) if flags else os.pipe()
    for end in ends:
        made.callback(os.close, end)
    return ends


def _pipe_of_packets(made: ExitStack) -> tuple[int, int, int]:
    """Return the ends, and a second one for reading, which does not block; -1 where the system has no such pipes."""
    if not PACKETS:
        return (*_pipe(made), -1)
    try:
        source, target = _pipe(made, PACKETS)
        second = unread_end(source)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return (*_pipe(made), -1)
    made.callback(os.close, second)
    return source, target, second


def _started(command: list[str], end: socket.socket) -> subprocess.Popen[Any]:
    """Start the server with the worker's signals blocked, until its own handlers ignore them."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[end.fileno()])  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _how(code: int) -> str:
    """Return how a process ended, by its exit code; the system's memory killer leaves no other trace."""
    try:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:  # it is no signal
        return f"ended with exit code {code}"
