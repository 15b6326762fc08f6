"""A second process that repeats a command on a Redis for as long as this one lives, however busy this one is.

Rules: the process is started with the first order; secrets reach it through a pipe; it ends with this process, however
that ends, and is started again if it ends before. Where no process can be started a thread does the same work, which
code that keeps the interpreter lock can starve; the log says so once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from celeriac.retry import Backoff
from celeriac.servers.redis import renewal

logger = logging.getLogger("celeriac.broker.redis")

_PROGRAM = Path(renewal.__file__)
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_TRIES = 3
"""How often in a row a process may end before it was ready, until a thread takes over."""

_END_WAIT = 0.5
"""Seconds between the end of a process's reports and its own."""


class Order(msgspec.Struct, frozen=True):
    """What to repeat.

    :param server: how to reach the Redis: see ``renewal.Server``.
    :param command: what to run there; empty for nothing.
    :param period: seconds between two runs.
    :param last: what to run once when this process has died and the second one has not.
    """

    server: Mapping[str, Any]
    command: Sequence[Any]
    period: float
    last: Sequence[Any] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} every {self.period:g} s>"  # the way to the server holds a password

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none

    def line(self) -> bytes:
        """Return the order as the process reads it."""
        return json.dumps(msgspec.to_builtins(self)).encode() + b"\n"


class Renewer:
    """Has the last order carried out, by a process or a thread. Belongs to the event loop that gave the first one.

    :param name: what is renewed, for the log.
    :ivar renewed: how often the order was carried out.
    """

    def __init__(self, name: str) -> None:
        self.renewed = 0
        self._name = name
        self._order: Order | None = None
        self._runner: _Runner | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._start: Callable[[], _Runner] = _ProcessRunner
        self._failures = 0
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        self._trouble = ""

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` where there is no process."""
        return self._runner.pid if self._runner is not None else None

    def follow(self, order: Order) -> None:
        """Have this order carried out from now on, in place of the one before."""
        self._order = order
        if self._runner is not None:
            self._runner.send(order.line())
        elif self._restart is None:
            self._begin()

    async def close(self) -> None:
        """End the process. Idempotent; the next order starts another."""
        self._order = None
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        runner = self._drop_runner()
        if runner is not None:
            await runner.end()

    def _begin(self) -> None:
        self._restart = None
        assert self._order is not None
        try:
            self._runner = self._start()
        except OSError as error:
            self._fall_back(str(error))
            self._runner = self._start()
        self._runner.send(self._order.line())
        asyncio.get_running_loop().add_reader(self._runner.reports, self._read_reports)

    def _read_reports(self) -> None:
        assert self._runner is not None
        try:
            text = os.read(self._runner.reports, 65536)
        except BlockingIOError:
            return
        if not text:
            self._start_another()
            return
        for line in text.decode(errors="replace").splitlines():
            if line == renewal.READY:
                self._failures = 0
                self._backoff.reset()
            else:
                self.renewed += not line
                self._log_change(line)

    def _log_change(self, trouble: str) -> None:
        if trouble:
            logger.warning("%s could not be renewed, trying again: %s", self._name, trouble)
        elif self._trouble:
            logger.warning("%s are renewed again", self._name)
        self._trouble = trouble

    def _start_another(self) -> None:
        """Start another runner a little later, in place of one that ended by itself."""
        runner = self._drop_runner()
        assert runner is not None
        how = runner.reap()
        self._failures += 1
        if self._failures >= _TRIES:
            self._fall_back(f"{sys.executable} {how}")
        wait = self._backoff.pause()
        logger.warning("the process that renews %s %s, starting another in %.1f s", self._name, how, wait)
        self._restart = asyncio.get_running_loop().call_later(wait, self._begin)

    def _drop_runner(self) -> _Runner | None:
        runner, self._runner = self._runner, None
        if runner is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(runner.reports)
        return runner

    def _fall_back(self, why: str) -> None:
        self._start = _ThreadRunner
        self._failures = 0
        logger.warning(
            "%s are renewed by a thread, since no process can be started for it (%s): a task that keeps the "
            "interpreter lock for longer than a lease will be run by another worker too",
            self._name,
            why,
        )


class _Runner(Protocol):
    """What carries out the orders."""

    @property
    def reports(self) -> int:
        """The descriptor that its reports come out of."""
        ...

    @property
    def pid(self) -> int | None: ...

    def send(self, line: bytes) -> None:
        """Have this order carried out from now on."""
        ...

    def reap(self) -> str:
        """Free what it had after it ended by itself; return how it ended."""
        ...

    async def end(self) -> None:
        """End it."""
        ...


class _ProcessRunner:
    """The program in a process of its own: out of reach of this one's interpreter lock, signals and event loop."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C and Ctrl-Z are for the parent.
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and nothing of it comes from outside
            [sys.executable or "python3", "-I", "-S", str(_PROGRAM), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self.reports = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._orders, False)
        os.set_blocking(self.reports, False)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, line: bytes) -> None:
        try:
            _write(self._orders, line)
        except BlockingIOError:
            self._process.kill()  # it hangs; the next one is given the order

    def reap(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WAIT)
        self._stop()
        return f"ended with {self._process.returncode}"

    async def end(self) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.kill()  # it keeps nothing that could be lost
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class _ThreadRunner:
    """The program in a thread."""

    pid = None

    def __init__(self) -> None:
        inner, self._orders = os.pipe()
        self.reports, outer = os.pipe()
        os.set_blocking(self._orders, False)
        os.set_blocking(self.reports, False)
        self._thread = threading.Thread(
            target=self._work, args=(inner, outer), name="celeriac-renewal", daemon=True
        )
        self._thread.start()

    def send(self, line: bytes) -> None:
        _write(self._orders, line)

    def reap(self) -> str:
        self._thread.join()
        self._close()
        return "ended"

    async def end(self) -> None:
        os.close(self._orders)
        await asyncio.to_thread(self._thread.join)
        os.close(self.reports)

    def _close(self) -> None:
        os.close(self._orders)
        os.close(self.reports)

    def _work(self, inner: int, outer: int) -> None:
        try:
            renewal.serve(inner, outer, None)
        finally:
            os.close(inner)
            os.close(outer)


def _write(orders: int, line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has ended, and the next one is given the order
        os.write(orders, line)
