"""Calls ahead: calls that are placed before a child is free, so that the child goes on without a pause.

Rules: calls are placed only while those of the pool are short. Some milliseconds of them wait in the pipe of each child
that runs another call, further ones wait here. A call in a pipe has not begun before the child is done with the call
before it. Until then it can be taken back, since the worker can read the child's pipe too: a packet of the pipe goes to
one of the two. It is taken back when another child is free, when it waits for too long, when its child is to be killed
or replaced, and when the worker asks for it.

While a child has calls ahead that are short enough, its answers wake nobody: the worker reads several at once. A child
that finds no next call wakes the worker.

A message that is acknowledged before its run is so by the child, through a delegate of the worker, when it comes to the
call: a worker that is killed loses none that has not begun. Where the child decided the ending of the call before, the
same step stores its result.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterable, Sequence

from celeriac.worker.pool import Call, NotBegun
from celeriac.worker.pools.processes.handle import Handle
from celeriac.worker.pools.processes.piped import Piped, Placed

logger = logging.getLogger("celeriac.worker")

SHORT = 0.02
"""Seconds up to which a call counts as short."""

SHORT_CALLS = 16
"""So many calls in a row must have been short before one is sent ahead."""

LONGEST = 0.1
"""Seconds after which a call ahead is taken back."""

MOST_CHILDREN = min(os.cpu_count() or 1, 8)
"""Children of a pool that places calls: of more, or of more than processors, another works while one pauses, and the
worker has no time left to place calls."""

STOCK = 0.012
"""Seconds of work that are in the pipe of each child, if that is more than one call."""

MOST = 15
"""Calls that are in a child's pipe at the most, which has room for 16 packets."""

QUIET_FROM = 4
"""So many calls in a pipe are worth it to have the worker read several answers at once."""

SHARE = 8
"""Of so many calls in a pipe that is full, one wakes the worker by its answer: the pipe is empty before it looks."""


MOST_UNRECORDED = 1
"""Calls with delegates that a child may have answered, and whose results have not landed, when it comes to another that
was sent ahead to it: the endings of acknowledged messages that have not landed are lost with a worker that is killed.
Those ahead of it count as well, whose results may turn out to go by the worker.
"""

DISTRUST = 10.0
"""Seconds for which the worker acknowledges all messages itself after a child could not."""


class Ahead:
    """The calls ahead of one pool.

    :param max_tasks: calls that a child runs at the most.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks
        self._loop = asyncio.get_running_loop()
        self._piped = Piped()
        self._waiting: deque[Placed] = deque()
        self._short = 0
        self._mean = SHORT
        self._delegates = True
        self._pauses = False
        self._trusts_from = float("-inf")
        self._look: asyncio.TimerHandle | None = None

    def places(self, busy: int, children: int) -> int:
        """Return how many calls may be placed in all while so many of the children are busy."""
        if children > MOST_CHILDREN or self._short < SHORT_CALLS or self._pauses:
            return 0
        return busy * (_depth(self._mean, self._delegates) + 1)

    def note(self, child: Handle, call: Call, seconds: float, *, recorded: bool) -> None:
        """Note that a child has answered a call.

        :param seconds: how long that took.
        :param recorded: whether it has stored the result itself.
        """
        self._short = self._short + 1 if seconds < SHORT else 0
        self._mean += (min(seconds, SHORT) - self._mean) / SHORT_CALLS
        placed = call.placed
        if placed is not None and placed.delegates and not recorded:
            placed.is_unrecorded = True
            child.unrecorded += 1

    def note_recorded(self, placed: Placed) -> Handle | None:
        """Note that the result of a call has landed; return its child, which may get another call now."""
        if not placed.is_unrecorded or placed.child is None:
            return None
        placed.is_unrecorded = False
        placed.child.unrecorded -= 1
        return placed.child

    @property
    def trusts_delegates(self) -> bool:
        """Whether children may acknowledge messages: not for a while after one could not."""
        return self._loop.time() >= self._trusts_from

    def distrust(self, call: Call, why: str) -> None:
        """Let the worker acknowledge messages for a while: a child could not, or found that one was lost."""
        self._trusts_from = self._loop.time() + DISTRUST
        if why:
            logger.warning(
                "a child process could not acknowledge the message of %s, so for %g s the worker does: %s",
                call.task.name,
                DISTRUST,
                why,
            )

    def place(self, call: Call, body: bytes, busy: Iterable[Handle]) -> Placed:
        """Take a call, and send it ahead to one of these children if one has room for it."""
        placed = Placed(call, body, self._loop)
        self._delegates = placed.delegates
        fewest_first = (self._send(placed, child) for child in sorted(busy, key=self._piped.count))
        if self._waiting or not any(fewest_first):
            self._waiting.append(placed)
        if self._look is None:
            self._look = self._loop.call_later(LONGEST, self._look_for_late)
        return placed

    def begin(self, child: Handle) -> Placed | None:
        """Return the call that a child begins, which has answered the one before; ``None`` where there is none."""
        return self._piped.begin(child)

    def refill(self, child: Handle) -> None:
        """Send the next calls ahead to a child that has just begun one."""
        while self._waiting and self._send(self._waiting[0], child):
            self._waiting.popleft()

    def steal(self) -> Placed | None:
        """Return a call for a child that is free, which nothing holds any more."""
        if self._waiting:
            return self._waiting.popleft()
        # Only of one child: to ask the kernel about all of them costs more than it saves.
        child = self._piped.fullest()
        return None if child is None else self._piped.take_back(child)

    def drop(self, child: Handle) -> bool:
        """Take back what is ahead in a child; return whether nothing is ahead there any more."""
        while (placed := self._piped.take_back(child)) is not None:
            _refuse(placed)
        return not self._piped.count(child)

    def holds(self, placed: Placed) -> bool:
        """Whether the call has not begun and was not taken back."""
        return placed in self._all()

    def recall(self, call: Call | None = None) -> None:
        """Take back this call, or all of them, as far as they have not begun."""
        for placed in self._all():
            if call is None or placed.call is call:
                self._take_back(placed)

    def lose(self, child: Handle) -> Placed | None:
        """Note that what was ahead in a child never begins there: the child is gone.

        Return the first call if it ends with its child: its message may be acknowledged by now, and cannot be given
        back.
        """
        first, *others = self._piped.lose(child) or (None,)
        for placed in others:
            _refuse(placed)
        if first is None or first.began.done() or first.answer is None:
            return None
        if first.delegates and child.ended_ahead is not None:
            first.answer.set_exception(child.ended_ahead)
            return first
        _refuse(first)
        return None

    def end(self, child: Handle) -> None:
        """Send no calls ahead any more: one of this child waits for a word of the worker, which would come behind."""
        self._pauses = True
        if not self.drop(child):
            child.keeps_ahead = True

    def close(self) -> None:
        """Look at nothing any more."""
        self._piped.close()
        if self._look is not None:
            self._look.cancel()

    def _send(self, placed: Placed, child: Handle) -> bool:
        ahead, depth = self._piped.count(child), _depth(self._mean, placed.delegates)
        if placed.delegates and child.unrecorded + (not child.stores) + ahead > MOST_UNRECORDED:
            return False
        number = child.calls + ahead
        fresh = self._max_tasks is None or number < self._max_tasks
        if not fresh or ahead >= depth or self._loop.time() - child.began >= SHORT:
            return False
        quietly = depth >= QUIET_FROM and (depth < MOST or number % SHARE > 0)
        return self._piped.send(placed, child, quietly=quietly)

    def _all(self) -> Sequence[Placed]:
        return [*self._piped.all(), *self._waiting]

    def _take_back(self, placed: Placed) -> None:
        if placed.child is not None:
            self.drop(placed.child)
        elif placed in self._waiting:
            self._waiting.remove(placed)
            _refuse(placed)

    def _look_for_late(self) -> None:
        self._look = None
        now = self._loop.time()
        for placed in self._all():
            if now - placed.since >= LONGEST:
                self._take_back(placed)
        left = [placed.since for placed in self._all()]
        if left:
            self._look = self._loop.call_later(max(min(left) + LONGEST - now, 0.01), self._look_for_late)


def _depth(mean: float, delegates: bool) -> int:
    """Return how many calls are to be in a pipe where calls take so long.

    What a child acknowledges goes in small numbers: of what is acknowledged, little must be on its way to the record.
    """
    most = 1 + MOST_UNRECORDED if delegates else MOST
    return most if mean * most <= STOCK else max(1, int(STOCK / mean))


def _refuse(placed: Placed) -> None:
    if not placed.began.done():
        placed.began.set_exception(NotBegun())
