"""A process that repeats a command on a store for as long as this one lives, however busy this one is.

Rules: it is started with the first order and kept; secrets reach it through a pipe; it ends with this process, however
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

from celeriac.servers.keeper import renewal

logger = logging.getLogger("celeriac.keeper")

_PROGRAM = Path(renewal.__file__)
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_TRIES = 3
"""How often in a row a process may end before it was ready, until a thread takes over."""

_LAST_BREATH = 0.5
"""Seconds between the end of a process's reports and its own."""


class Order(msgspec.Struct, frozen=True):
    """What to repeat.

    :param store: how to reach the store: see ``renewal.RedisStore`` and ``renewal.SqliteStore``.
    :param command: what to run there; empty for nothing.
    :param period: seconds between two runs.
    """

    store: Mapping[str, Any]
    command: Sequence[Any]
    period: float

    def __repr__(self) -> str:
        return f"<{type(self).__name__} every {self.period:g} s>"  # the way to the store holds a password

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none

    def line(self) -> bytes:
        """Return the order as the process reads it."""
        return json.dumps(msgspec.to_builtins(self)).encode() + b"\n"


class Keeper:
    """Has the last order carried out. Belongs to the event loop that gave the first one.

    :param name: what is renewed, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._order: Order | None = None
        self._hand: _Hand | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._start: Callable[[], _Hand] = _Process
        self._failures = 0
        self._trouble = ""

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` where there is no process."""
        return self._hand.pid if self._hand is not None else None

    def follow(self, order: Order) -> None:
        """Have this order carried out from now on, in place of the one before."""
        self._order = order
        if self._hand is not None:
            self._hand.send(order.line())
        elif self._restart is None:
            self._begin()

    async def close(self) -> None:
        """End the process. Idempotent; the next order starts another."""
        self._order = None
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        hand = self._let_go()
        if hand is not None:
            await hand.end()

    def _begin(self) -> None:
        self._restart = None
        assert self._order is not None
        try:
            self._hand = self._start()
        except OSError as error:
            self._fall_back(str(error))
            self._hand = self._start()
        self._hand.send(self._order.line())
        asyncio.get_running_loop().add_reader(self._hand.reports, self._listen)

    def _listen(self) -> None:
        assert self._hand is not None
        try:
            text = os.read(self._hand.reports, 65536)
        except BlockingIOError:
            return
        if not text:
            self._mourn()
            return
        for line in text.decode(errors="replace").splitlines():
            if line == renewal.READY:
                self._failures = 0
            else:
                self._say(line)

    def _say(self, trouble: str) -> None:
        if trouble:
            logger.warning("%s could not be renewed, trying again: %s", self._name, trouble)
        elif self._trouble:
            logger.warning("%s are renewed again", self._name)
        self._trouble = trouble

    def _mourn(self) -> None:
        """Start another one a little later."""
        hand = self._let_go()
        assert hand is not None
        how = hand.bury()
        self._failures += 1
        if self._failures >= _TRIES:
            self._fall_back(f"{sys.executable} {how}")
        wait = min(_FIRST_WAIT * 2**self._failures, _LONGEST_WAIT)
        logger.warning("the process that renews %s %s, starting another in %.1f s", self._name, how, wait)
        self._restart = asyncio.get_running_loop().call_later(wait, self._begin)

    def _let_go(self) -> _Hand | None:
        hand, self._hand = self._hand, None
        if hand is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(hand.reports)
        return hand

    def _fall_back(self, why: str) -> None:
        self._start = _Thread
        self._failures = 0
        logger.warning(
            "%s are renewed by a thread, since no process can be started for it (%s): a task that keeps the "
            "interpreter lock for longer than a lease will be run by another worker too",
            self._name,
            why,
        )


class _Hand(Protocol):
    """Who carries out the orders."""

    @property
    def reports(self) -> int:
        """What it says comes out of this descriptor."""
        ...

    @property
    def pid(self) -> int | None: ...

    def send(self, line: bytes) -> None:
        """Give it an order."""
        ...

    def bury(self) -> str:
        """Tidy up after it ended by itself; say how it did."""
        ...

    async def end(self) -> None:
        """End it."""
        ...


class _Process:
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

    def bury(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_BREATH)
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


class _Thread:
    """The program in a thread."""

    pid = None

    def __init__(self) -> None:
        inner, self._orders = os.pipe()
        self.reports, outer = os.pipe()
        os.set_blocking(self._orders, False)
        os.set_blocking(self.reports, False)
        self._thread = threading.Thread(
            target=self._work, args=(inner, outer), name="celeriac-keeper", daemon=True
        )
        self._thread.start()

    def send(self, line: bytes) -> None:
        _write(self._orders, line)

    def bury(self) -> str:
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
