"""The share of the tasks that have events: a monitor follows some thousand tasks a second, a worker may run more.

Rules: up to the limit all have. Above it the share falls with the square of the rate, so that of twice the limit half
of the limit has: the more tasks a worker runs, the less processor time is left beside them, for events, for the broker
that carries them, and for a monitor on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

WINDOW = 0.5
"""Seconds over which tasks are counted."""

SHORTEST = 0.01
"""Seconds that a window counts for at least, so that a share is more than 0."""


class Share:
    """Chooses tasks evenly.

    :param limit: tasks a second up to which all are chosen; ``None`` for all of any number.
    :param now: seconds of a clock that only goes forward.
    """

    def __init__(self, limit: float | None, now: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._now = now
        self._free = inf if limit is None else limit * WINDOW
        self._began = now()
        self._seen = 0
        self._share = 1.0
        self._due = 0.0

    @property
    def present(self) -> float:
        """The share that is chosen just now, more than 0 and at most 1."""
        return self._share if self._now() < self._began + 2 * WINDOW else 1.0

    def takes(self) -> bool:
        """Whether the next task is among the chosen."""
        self._seen += 1
        if self._seen < self._free and self._share == 1:
            return True  # too few to look at the clock
        self._look()
        if self._share == 1:
            return True
        self._due += self._share
        if self._due < 1:
            return False
        self._due -= 1
        return True

    def _look(self) -> None:
        """Begin a new window with the share that follows from the last one, if that is over.

        A window in which all are chosen is over as soon as it has as many as it may have.
        """
        now = self._now()
        passed = max(now - self._began, SHORTEST)
        if self._limit is not None and (passed >= WINDOW or self._share == 1):
            self._share = min(1.0, self._limit * passed / self._seen) ** 2
            self._began, self._seen = now, 0
