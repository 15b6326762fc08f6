"""The share of the tasks that have events: a monitor follows some thousand tasks a second, a worker may run more.

Rules: up to the limit all have. Above it the share falls with the square of the rate, so that of twice the limit half
of the limit has: the more tasks a worker runs, the less processor time is left beside them, for events, for the broker
that carries them, and for a monitor on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

WINDOW = 0.1
"""Seconds over which tasks are counted."""

BURST = 0.2
"""A burst is chosen whole up to what the limit allows in so many seconds.

By default that is 300 tasks, which take Flower 40 ms of a core that broker and worker may want, too.
"""

_LOOKS = 10
"""How often the clock is looked at while the tasks of a burst are chosen, at least."""

_SHORTEST = 0.001
"""Seconds that a burst lasts at least, so that a share is more than 0."""


class Share:
    """Chooses tasks evenly.

    After a quiet time a burst is chosen whole, up to as many tasks as the limit allows in ``BURST`` seconds; that
    allowance grows at the rate of the limit. Once it is used up, the share follows from the rate of the burst, and then
    from that of each window, until one has no more than the limit.

    :param limit: tasks a second up to which all are chosen; ``None`` for all of any number.
    :param now: seconds of a clock that only goes forward.
    """

    def __init__(self, limit: float | None, now: Callable[[], float] = monotonic) -> None:
        self._limit = inf if limit is None else limit
        self._most = self._limit * BURST
        self._now = now
        self._due = 0.0
        self._choose_all(now())

    @property
    def present(self) -> float:
        """The share that is chosen just now, more than 0 and at most 1."""
        return self._share if self._now() < self._began + 2 * WINDOW else 1.0

    def takes(self) -> bool:
        """Whether the next task is among the chosen."""
        self._seen += 1
        if self._share == 1:
            if self._seen < self._next_look:
                return True  # too few to look at the clock
            self._look_at_burst()
        elif (now := self._now()) >= self._began + WINDOW:
            self._end_window(now)
        if self._share == 1:
            return True
        self._due += self._share
        if self._due < 1:
            return False
        self._due -= 1
        return True

    def _choose_all(self, now: float) -> None:
        """Begin a time in which all are chosen, with the whole allowance."""
        self._share = 1.0
        self._began, self._seen = now, 0
        self._next_look = self._most / _LOOKS

    def _look_at_burst(self) -> None:
        """Choose all as long as the allowance lasts. It is whole again where fewer came than the limit allows."""
        now = self._now()
        passed = now - self._began
        if self._seen <= self._limit * passed:
            self._choose_all(now)
        elif self._seen < self._most + self._limit * passed:
            left = self._most + self._limit * passed - self._seen
            self._next_look = self._seen + min(left, self._most / _LOOKS)
        else:
            self._choose_some(now, max(passed, _SHORTEST))

    def _choose_some(self, now: float, passed: float) -> None:
        """Begin a window with the share that follows from what came in the time that passed."""
        self._share = min(1.0, self._limit * passed / self._seen) ** 2
        self._began, self._seen = now, 0

    def _end_window(self, now: float) -> None:
        if self._seen <= self._limit * (now - self._began):
            self._choose_all(now)
        else:
            self._choose_some(now, now - self._began)
