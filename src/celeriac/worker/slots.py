"""Counts how many bodies run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.worker.attempt import Attempt
from celeriac.worker.pool import NotBegun

LONGEST = 0.1
"""Seconds that an attempt waits for a slot before its message goes back to the queue."""


class Slots:
    """Counts free slots. An attempt has a slot while its body runs, and not while its result and acknowledgement land.

    :param total: how many bodies may run at once.
    :param settling: how many further attempts may be landing. Without this limit, memory would grow for as long as the
        result store is away.
    :ivar may_reserve: whether attempts may wait for a slot at all.
    :ivar is_stuck: whether an attempt waited for too long since a body ended last. Without it, a worker would take the
        message that it gave back again and again.
    :ivar waiting: the attempts that wait for one, in their order.
    """

    def __init__(self, total: int, settling: int) -> None:
        self.total = total
        self.running = 0
        self.settling = 0
        self._settling_limit = settling
        self._changed = asyncio.Event()
        self._awaited = False
        self._closed = False
        self.may_reserve = True
        self.is_stuck = False
        self.waiting: dict[Attempt, None] = {}
        self._turns: dict[Attempt, asyncio.Future[None]] = {}

    @property
    def free(self) -> int:
        """How many more attempts may start now."""
        room = self._settling_limit - self.settling
        return max(0, min(self.total - self.running, room))

    @property
    def may_wait(self) -> bool:
        """Whether attempts may wait for a slot: not after ``close``, nor while they can have none soon."""
        soon = self.running <= self.total and self.settling < self._settling_limit
        return soon and self.may_reserve and not self.is_stuck and not self._closed

    async def wait_free(self, places: Callable[[], int] | None = None) -> int:
        """Wait until a slot is free; return how many are. After ``close``, return 0 at once.

        :param places: returns how many attempts may wait for a slot; so many count while none is free.
        """
        free = 0
        while not self._closed:
            free = self.free
            if not free and places is not None and self.may_wait:
                free = max(0, places() - len(self.waiting))
            if free:
                break
            self._changed.clear()
            self._awaited = True
            await self._changed.wait()
        return 0 if self._closed else free

    async def turn(self, attempt: Attempt) -> None:
        """Give a waiting attempt the next slot that is free.

        Raises ``NotBegun`` after ``LONGEST``, and where attempts may not wait now.
        """
        if self.free and not self._closed:
            self.take(attempt)
            return
        if not self.may_wait:
            raise NotBegun
        loop = asyncio.get_running_loop()
        turn = self._turns[attempt] = loop.create_future()
        timer = loop.call_later(LONGEST, _too_late, turn)
        try:
            await turn
        finally:
            del self._turns[attempt]
            timer.cancel()

    def close(self) -> None:
        """End every wait for a free slot."""
        self._closed = True
        self._wake()
        for turn in self._turns.values():
            _too_late(turn)

    def wait(self, attempt: Attempt) -> None:
        """Count an attempt that has no slot yet."""
        self.waiting[attempt] = None

    def resize(self, total: int) -> None:
        """Change how many bodies run at once; bodies above the new number run to their end."""
        self.total = total
        self._wake()

    def take(self, attempt: Attempt) -> None:
        """Give the attempt a slot."""
        self.running += 1
        attempt.has_slot = True
        if self.waiting and attempt in self.waiting:
            del self.waiting[attempt]
            if self._awaited:
                self._wake()

    def body_done(self, attempt: Attempt) -> None:
        """Free the attempt's slot for another body; its result and acknowledgement are still to land."""
        if attempt.has_slot:
            attempt.has_slot = False
            self.running -= 1
            self.settling += 1
            self.is_stuck = False
            if self._turns:
                self._pass_on()
            if self._awaited:
                self._wake()

    def leave(self, attempt: Attempt) -> None:
        """Count the attempt as over."""
        if attempt.has_slot:
            self.body_done(attempt)
        if self.waiting and attempt in self.waiting:
            del self.waiting[attempt]
        else:
            self.settling -= 1
        if self._turns:
            self._pass_on()
        if self._awaited:
            self._wake()

    def _pass_on(self) -> None:
        """Give free slots to attempts that wait for nothing else."""
        for attempt, turn in self._turns.items():
            if self.free and not turn.done():
                turn.set_result(None)
                self.take(attempt)

    def _wake(self) -> None:
        self._awaited = False
        self._changed.set()


def _too_late(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(NotBegun())
