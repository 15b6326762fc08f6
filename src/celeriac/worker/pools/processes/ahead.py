"""Calls ahead: calls that are placed before a child is free, so that the child goes on without a pause.

Rules: calls are placed only while those of the pool are short. One waits in the pipe of each child that runs another
call, further ones wait here. A call in a pipe has not begun before the child is done with the call before it. Until
then it can be taken back, since the worker can read the child's pipe too: a packet of the pipe goes to one of the two.
It is taken back when another child is free, when it waits for too long, when its child is to be killed or replaced, and
when the worker asks for it.

A message that is acknowledged before its run is so by the child, through a delegate of the worker, when it comes to the
call: a worker that is killed loses none that has not begun. Where the child decided the ending of the call before, the
same step stores its result.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterable

from celeriac.worker.pool import Call, NotBegun
from celeriac.worker.pools.processes.frames import Frame
from celeriac.worker.pools.processes.handle import Handle

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

FOR_EACH = 2
"""Calls that are placed for each child: one in its pipe, and one on its way there."""


MOST_UNRECORDED = 1
"""Calls with delegates that a child may have answered, and whose results have not landed, when it comes to another that
was sent ahead to it: the endings of acknowledged messages that have not landed are lost with a worker that is killed.
"""

DISTRUST = 10.0
"""Seconds for which the worker acknowledges all messages itself after a child could not."""


class Placed:
    """A call that was placed.

    :ivar began: done when the function has begun; raises ``NotBegun`` where the call was taken back.
    :ivar child: the child in whose pipe it is; ``None`` while it waits for one.
    :ivar answer: the child's answer, once it has begun.
    :ivar delegates: whether its message is acknowledged in the child, before the function.
    :ivar is_unrecorded: whether the child has answered it, and its result has not landed.
    """

    __slots__ = ("answer", "began", "body", "call", "child", "delegates", "is_unrecorded", "since")

    def __init__(self, call: Call, body: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.body = body
        self.child: Handle | None = None
        self.answer: asyncio.Future[Frame] | None = None
        self.delegates = call.delegate is not None
        self.is_unrecorded = False
        self.since = loop.time()
        self.began: asyncio.Future[None] = loop.create_future()


class Ahead:
    """The calls ahead of one pool.

    :param max_tasks: calls that a child runs at the most.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks
        self._loop = asyncio.get_running_loop()
        self._in_pipes: dict[Handle, Placed] = {}
        self._waiting: deque[Placed] = deque()
        self._short = 0
        self._pauses = False
        self._trusts_from = float("-inf")
        self._look: asyncio.TimerHandle | None = None

    def places(self, busy: int, children: int) -> int:
        """Return how many calls may be placed in all while so many of the children are busy."""
        if children > MOST_CHILDREN or self._short < SHORT_CALLS or self._pauses:
            return 0
        return busy * FOR_EACH

    def note(self, child: Handle, call: Call, *, recorded: bool) -> None:
        """Note that a child has answered a call, and how long that took.

        :param recorded: whether it has stored the result itself.
        """
        self._short = self._short + 1 if self._loop.time() - child.began < SHORT else 0
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
        if self._waiting or not any(self._send(placed, child) for child in busy):
            self._waiting.append(placed)
        if self._look is None:
            self._look = self._loop.call_later(LONGEST, self._look_for_late)
        return placed

    def begin(self, child: Handle) -> Placed | None:
        """Return the call that a child begins, which has answered the one before; ``None`` where there is none."""
        return self._in_pipes.pop(child, None)

    def refill(self, child: Handle) -> None:
        """Send the next call ahead to a child that has just begun one."""
        if self._waiting and self._send(self._waiting[0], child):
            self._waiting.popleft()

    def steal(self) -> Placed | None:
        """Return a call for a child that is free, which nothing holds any more."""
        if self._waiting:
            return self._waiting.popleft()
        # Only the oldest: to ask the kernel about all of them costs more than it saves.
        child = next(iter(self._in_pipes), None)
        return self._in_pipes.pop(child) if child is not None and child.take_back() else None

    def drop(self, child: Handle) -> bool:
        """Take back what is ahead in a child; return whether nothing is ahead there any more."""
        if child in self._in_pipes:
            if not child.take_back():
                return False
            self.lose(child)
        return True

    def holds(self, placed: Placed) -> bool:
        """Whether the call has not begun and was not taken back."""
        return placed in self._in_pipes.values() or placed in self._waiting

    def recall(self, call: Call | None = None) -> None:
        """Take back this call, or all of them, as far as they have not begun."""
        for placed in [*self._in_pipes.values(), *self._waiting]:
            if call is None or placed.call is call:
                self._take_back(placed)

    def lose(self, child: Handle) -> Placed | None:
        """Note that what was ahead in a child never begins there: it was taken back, or the child is gone.

        Return the call if it ends with its child: its message may be acknowledged by now, and cannot be given back.
        """
        placed = self._in_pipes.pop(child, None)
        if placed is None or placed.began.done() or placed.answer is None:
            return None
        if placed.delegates and child.ended_ahead is not None:
            placed.answer.set_exception(child.ended_ahead)
            return placed
        _refuse(placed)
        return None

    def end(self, child: Handle) -> None:
        """Send no calls ahead any more: one of this child waits for a word of the worker, which would come behind."""
        self._pauses = True
        if not self.drop(child):
            child.keeps_ahead = True

    def close(self) -> None:
        """Look at nothing any more."""
        if self._look is not None:
            self._look.cancel()

    def _send(self, placed: Placed, child: Handle) -> bool:
        if placed.delegates and child.unrecorded + (not child.stores) > MOST_UNRECORDED:
            return False
        fresh = self._max_tasks is None or child.calls < self._max_tasks
        if not fresh or child in self._in_pipes or self._loop.time() - child.began >= SHORT:
            return False
        placed.answer = child.place(placed.body)
        if placed.answer is None:
            return False
        placed.child = child
        self._in_pipes[child] = placed
        return True

    def _take_back(self, placed: Placed) -> None:
        if placed.child is not None:
            self.drop(placed.child)
        else:
            self._waiting.remove(placed)
            _refuse(placed)

    def _look_for_late(self) -> None:
        self._look = None
        now = self._loop.time()
        for placed in [*self._in_pipes.values(), *self._waiting]:
            if now - placed.since >= LONGEST:
                self._take_back(placed)
        left = [placed.since for placed in (*self._in_pipes.values(), *self._waiting)]
        if left:
            self._look = self._loop.call_later(max(min(left) + LONGEST - now, 0.01), self._look_for_late)


def _refuse(placed: Placed) -> None:
    if not placed.began.done():
        placed.began.set_exception(NotBegun())
