"""Decides when a worker's process collects cyclic garbage: seldom, and whenever its memory has grown.

Rules: modules stay loaded and attempts form no cycles, so most collections would find nothing. The cycles that tasks
make (an error kept in a variable) may hold much memory, though, which the interpreter does not notice, because it
counts objects and not bytes. What is freed goes back to the system: the C library would keep it, and memory that is
only kept looks like memory in use, so that the next collection would come later each time.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

try:
    import resource
except ModuleNotFoundError:  # Windows: its clients have the same commands, workers do not run there
    resource = None  # type: ignore[assignment]

THRESHOLDS = (20_000, 20, 20)
"""Replace the interpreter's thresholds, under which a busy worker spends a tenth of its time on objects that live."""

INTERPRETERS_OWN = {(700, 10, 10), (2000, 10, 10), (2000, 10, 0)}
"""The default thresholds of CPython 3.11 to 3.14: other values were set by the program, and stay."""

LOOK_EVERY = 0.02
"""Seconds at the least between two looks at the memory: one costs some ten microseconds."""

GROWTH, ALLOWANCE = 1.25, 64 * 1024 * 1024
"""How much memory may grow from one collection to the next: by a factor, and by so many bytes."""

STATM = Path("/proc/self/statm")
PAGE = mmap.PAGESIZE


class Collecting:
    """Decides when cyclic garbage is collected, in place of the interpreter, unless the program has set thresholds."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()
        self._takes_over = gc.isenabled() and self._before in INTERPRETERS_OWN
        if self._takes_over:
            gc.set_threshold(*THRESHOLDS)
        self._limit = _limit()
        self._next_look = 0.0

    def end(self) -> None:
        """Give the interpreter its thresholds back, unless other code has changed them since."""
        if self._takes_over and gc.get_threshold() == THRESHOLDS:
            gc.set_threshold(*self._before)
        self._takes_over = False

    def look(self) -> None:
        """Collect garbage if memory has grown. A worker calls this when it took messages, a child after each call."""
        if not self._takes_over:
            return
        now = monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if _resident() > self._limit:
            gc.collect()
            _give_back()
            self._limit = _limit()


def _give_back() -> None:
    """Let the C library return free memory to the system, where it is glibc (``malloc_trim(3)``)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _limit() -> float:
    return _resident() * GROWTH + ALLOWANCE


def _resident() -> int:
    """Return the bytes that this process has resident; where the system does not tell, the most it ever had."""
    try:
        return int(STATM.read_bytes().split()[1]) * PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
