"""Handles SIGTERM, SIGINT and SIGHUP: the first stops a worker gracefully, the second has it give its messages back.

Rules: the handlers are for this process alone. A process that a task forks would inherit the handlers and the pipe that
wakes the worker's event loop, so that a signal to it would stop the worker instead; so the child gets other handlers.
Two signals at the same moment count as one: a wrapper (uv, npm, mise) passes Ctrl-C on, though the terminal has sent it
to the worker already.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

import msgspec

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""What a terminal sends when it goes, and a script that wants a worker to start again; Windows has none."""

SIGNALS = tuple(number for number in (signal.SIGTERM, signal.SIGINT, HANGUP) if number is not None)

HEARD_IN_VAIN = tuple(number for number in SIGNALS if number != signal.SIGINT)
"""Those for which child processes of the worker have a handler that does nothing. With SIG_IGN the programs that a task
starts would ignore them too."""

APART = 0.3
"""Seconds that lie at least between two signals that a person sends on purpose."""


class Stop(msgspec.Struct, frozen=True):
    """The first signal that came.

    :param quick: whether it gives running tasks no time.
    """

    number: signal.Signals
    quick: bool


class Inheritance:
    """Gives processes that this one forks signal handlers of their own.

    :param handlers: for each signal, as ``signal.signal`` takes it.
    """

    def __init__(self, handlers: Mapping[signal.Signals, Any]) -> None:
        self._handlers = dict(handlers)
        self._masks: dict[int, Iterable[int]] = {}
        os.register_at_fork(
            before=self._hold_back, after_in_parent=self._let_through, after_in_child=self._leave_to_child
        )

    def end(self) -> None:
        """Let forked processes inherit this process's handlers from now on."""
        self._handlers.clear()

    def _hold_back(self) -> None:
        """Let no signal reach a child that still has our handlers."""
        if self._handlers:
            self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)

    def _let_through(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _leave_to_child(self) -> None:
        """Give the child its handlers; a signal that comes meanwhile ends it, since exceptions are dropped in here."""
        try:
            if self._handlers:
                signal.set_wakeup_fd(-1)
                for number, handler in self._handlers.items():
                    signal.signal(number, handler if handler is signal.SIG_IGN else signal.SIG_DFL)
            self._let_through()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)


class Signals:
    """Listens for the signals that end a worker, within an ``async with`` block of the main thread.

    :param apart: seconds after the first in which no other counts.
    :param quick: signals that count as the first and the second at once.
    :ivar stop: the first signal, once it came.
    """

    def __init__(self, apart: float = APART, quick: Collection[signal.Signals] = ()) -> None:
        self._apart = apart
        self._quick = quick
        self._first_at = 0.0
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.stop: Stop | None = None
        self._inheritance: Inheritance | None = None
        self._numbers: Sequence[signal.Signals] = ()

    async def __aenter__(self) -> Self:
        self._numbers = self._to_handle()
        self._inheritance = Inheritance({number: _default(number) for number in self._numbers})
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, partial(self._received, number, quick=number in self._quick))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inheritance is not None:
            self._inheritance.end()
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)

    def _to_handle(self) -> Sequence[signal.Signals]:
        """Return the signals to handle; what ``nohup`` has started outlives its terminal."""
        usual = [
            number for number in SIGNALS if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        return (*usual, *(number for number in self._quick if number not in SIGNALS))

    def _received(self, number: signal.Signals, *, quick: bool) -> None:
        now = monotonic()
        if self.stop is None:
            self.stop = Stop(number, quick)
        if quick:
            self.first.set()
            self.second.set()
        elif not self.first.is_set():
            self._first_at = now
            self.first.set()
        elif now - self._first_at >= self._apart:
            self.second.set()


def _default(number: signal.Signals) -> Any:
    """Return the default handler of a signal; a program that was started ignoring the signal keeps ignoring it."""
    if signal.getsignal(number) is signal.SIG_IGN:
        return signal.SIG_IGN
    return signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
