"""Calls in the pipes of children, which have not begun as far as the worker knows.

Rules: a child runs the calls of its pipe in their order. An answer for which nobody is woken is read some milliseconds
after it was written, or with the next answer that wakes the worker: as long as calls are in a pipe behind one whose
answer may be such, the worker looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import chain

from celeriac.worker.pool import Call
from celeriac.worker.pools.processes.frames import Frame
from celeriac.worker.pools.processes.handle import Handle

LOOK = 0.004
"""Seconds after which the worker looks for answers for which nobody was woken."""


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


class Piped:
    """The calls in the pipes of one pool's children."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: dict[Handle, deque[Placed]] = {}
        self._look: asyncio.TimerHandle | None = None

    def all(self) -> Sequence[Placed]:
        """Return all of them."""
        return list(chain.from_iterable(self._calls.values()))

    def count(self, child: Handle) -> int:
        """Return how many are ahead of a child."""
        return len(self._calls.get(child, ()))

    def fullest(self) -> Handle | None:
        """Return the child of which the most are ahead; ``None`` where no call is ahead."""
        return max(self._calls, key=self.count, default=None)

    def send(self, placed: Placed, child: Handle, *, quietly: bool) -> bool:
        """Send a call ahead to a child; return whether its pipe has taken it."""
        placed.answer = child.place(placed.body, quietly=quietly)
        if placed.answer is None:
            return False
        placed.child = child
        self._calls.setdefault(child, deque()).append(placed)
        if self._look is None and (quietly or child.is_quiet):
            self._look = self._loop.call_later(LOOK, self._look_for_answers)
        return True

    def begin(self, child: Handle) -> Placed | None:
        """Return the call that a child begins, which has answered the one before; ``None`` where there is none."""
        ahead = self._calls.get(child)
        return None if ahead is None else self._without(child, ahead[0])

    def take_back(self, child: Handle) -> Placed | None:
        """Take the first call that a child has not read out of its pipe; return ``None`` where that cannot be done."""
        if child in self._calls and (answer := child.take_back()) is not None:
            for placed in self._calls[child]:
                if placed.answer is answer:
                    return self._without(child, placed)
        return None

    def lose(self, child: Handle) -> Sequence[Placed]:
        """Return the calls that were ahead of a child which is gone."""
        return self._calls.pop(child, ())

    def close(self) -> None:
        """Look for no answers any more."""
        if self._look is not None:
            self._look.cancel()

    def _without(self, child: Handle, placed: Placed) -> Placed:
        self._calls[child].remove(placed)
        if not self._calls[child]:
            del self._calls[child]
        return placed

    def _look_for_answers(self) -> None:
        self._look = None
        for child in list(self._calls):
            child.look()
        if self._calls and self._look is None:
            self._look = self._loop.call_later(LOOK, self._look_for_answers)
