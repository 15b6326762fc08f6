"""How much may run at once."""

from __future__ import annotations

import asyncio


class Slots:
    """Counts free places. A place is held while a task's body runs, not while its result and ack are on their way.

    :param total: how many bodies may run at once.
    :param settling: how many attempts may be on their way out besides, so that a store that is away cannot make
        memory grow without end.
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
        """How many more may start now."""
        room = self._settling_limit - self.settling
        return max(0, min(self.total - self.running, room))

    async def wait_free(self) -> int:
        """Return how many places are free, waiting until there is one; 0 after ``close``."""
        while not self._closed and (free := self.free) == 0:
            self._changed.clear()
            self._awaited = True
            await self._changed.wait()
        return 0 if self._closed else free

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self._wake()

    def resize(self, total: int) -> None:
        """Let so many bodies run at once; those above it that run already go on."""
        self.total = total
        self._wake()

    def take(self) -> Place:
        """Occupy a place."""
        self.running += 1
        return Place(self)

    def body_done(self) -> None:
        """Count a place as free; its attempt has its result and acknowledgement still to come."""
        self.running -= 1
        self.settling += 1
        if self._awaited:
            self._wake()

    def settled(self) -> None:
        """Count an attempt as over."""
        self.settling -= 1
        if self._awaited:
            self._wake()

    def _wake(self) -> None:
        self._awaited = False
        self._changed.set()


class Place:
    """One attempt's place."""

    __slots__ = ("_held", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True

    def body_done(self) -> None:
        """Free the place for another body."""
        if self._held:
            self._held = False
            self._slots.body_done()

    def leave(self) -> None:
        """Free the place: the attempt is over."""
        if self._held:
            self.body_done()
        self._slots.settled()
