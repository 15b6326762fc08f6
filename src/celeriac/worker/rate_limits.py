"""Rate limits: how often this worker starts the runs of a task.

Rules: a message that has to wait has a turn booked here, and is parked in the broker until then. It may come back to
another worker of the queue, which books a turn of its own; the turn that it has left behind goes to another message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from celeriac.quantities import Rate, seconds_apart
from celeriac.wire.task import TaskMessage
from celeriac.worker.runnable import Runnable

EARLY = 0.01
"""Seconds before its turn at which a message may run: clocks and timers are not more exact."""

LEFT_BEHIND = 2.0
"""Seconds after its turn at which a message counts as gone to another worker: brokers bring it back a little late."""

USABLE = 2.0
"""Seconds for which another message may use that turn; so no more of them add up."""

MOST_BOOKED = 100_000
"""Turns of one task that are remembered; a message beyond that books anew when it comes back."""


class RateLimits:
    """The rate limits of one worker.

    :param default: the limit of tasks that have none of their own.
    :ivar free: the names of tasks that are known to have no limit.
    """

    def __init__(self, tasks: Mapping[str, Runnable], default: Rate | None) -> None:
        self._tasks = tasks
        self._default = default
        self._lines: dict[str, _Line | None] = {}
        self.free: set[str] = set()

    def set(self, task: str, rate: Rate | None) -> None:
        """Change the limit of a task until the worker ends. Raises ``ValueError`` for what is none."""
        interval = seconds_apart(rate)
        self._lines[task] = None if interval is None else _Line(rate, interval)
        if interval is None:
            self.free.add(task)
        else:
            self.free.discard(task)

    def of(self, task: str) -> Rate | None:
        """Return the limit of a task."""
        line = self._line(task)
        return None if line is None else line.rate

    def turn(self, message: TaskMessage, now: float) -> float | None:
        """Return ``None`` for a message that may run now; for another book its turn, and return when that is."""
        line = self._line(message.task)
        return None if line is None else line.turn(message.id, now)

    def _line(self, task: str) -> _Line | None:
        if task not in self._lines:
            own = self._tasks[task].options.rate_limit
            self.set(task, self._default if own is None else own)
        return self._lines[task]


class _Line:
    """The turns of one task: one every ``interval`` seconds."""

    def __init__(self, rate: Rate | None, interval: float) -> None:
        self.rate = rate
        self._interval = interval
        self._next = 0.0
        self._booked: OrderedDict[str, float] = OrderedDict()

    def turn(self, id: str, now: float) -> float | None:
        due = self._booked.get(id)
        if due is not None:
            if due > now + EARLY:
                return due
            del self._booked[id]
            return None
        if self._left_behind(now):
            return None
        due = max(now, self._next)
        self._next = due + self._interval
        if due <= now + EARLY:
            return None
        if len(self._booked) < MOST_BOOKED:
            self._booked[id] = due
        return due

    def _left_behind(self, now: float) -> bool:
        """Whether there was a turn that its message did not use; it is used now."""
        while self._booked:
            id, due = next(iter(self._booked.items()))
            if due > now - LEFT_BEHIND:
                return False
            del self._booked[id]
            if due > now - LEFT_BEHIND - USABLE:
                return True
        return False
