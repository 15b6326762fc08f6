"""Counts how many bodies run at once."""

from __future__ import annotations

import asyncio

from celeriac.worker.attempt import Attempt


class Slots:
    """Counts free slots. An attempt has a slot while its body runs, and not while its result and acknowledgement land.

    :param total: how many bodies may run at once.
    :param settling: how many further attempts may be landing. Without this limit, memory would grow for as long as the
        result store is away.
    """

    def __init__(self, total: int, settling: int) -> None:
        self.total = total
        self.running = 0
        self.settling = 0
        self._settling_limit = settling
        self._changed = asyncio.Event()
        self._awaited = False
        self._closed = False

    @property
    def free(self) -> int:
        """How many more attempts may start now."""
        room = self._settling_limit - self.settling
        return max(0, min(self.total - self.running, room))

    async def wait_free(self) -> int:
        """Wait until a slot is free; return how many are. After ``close``, return 0 at once."""
        while not self._closed and (free := self.free) == 0:
            self._changed.clear()
            self._awaited = True
            await self._changed.wait()
        return 0 if self._closed else free

    def close(self) -> None:
        """End every wait for a free slot."""
        self._closed = True
        self._wake()

    def resize(self, total: int) -> None:
        """Change how many bodies run at once; bodies above the new number run to their end."""
        self.total = total
        self._wake()

    def take(self, attempt: Attempt) -> None:
        """Give the attempt a slot."""
        self.running += 1
        attempt.has_slot = True

    def body_done(self, attempt: Attempt) -> None:
        """Free the attempt's slot for another body; its result and acknowledgement are still to land."""
        if attempt.has_slot:
            attempt.has_slot = False
            self.running -= 1
            self.settling += 1
            if self._awaited:
                self._wake()

    def leave(self, attempt: Attempt) -> None:
        """Count the attempt as over."""
        if attempt.has_slot:
            self.body_done(attempt)
        self.settling -= 1
        if self._awaited:
            self._wake()

    def _wake(self) -> None:
        self._awaited = False
        self._changed.set()
