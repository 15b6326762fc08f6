"""Counts how many bodies run at once."""

from __future__ import annotations

import asyncio


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

    def take(self) -> Place:
        """Occupy a slot."""
        self.running += 1
        return Place(self)

    def body_done(self) -> None:
        """Count a slot as free; the result and the acknowledgement of its attempt are still to land."""
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
    """The slot of one attempt."""

    __slots__ = ("_held", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True

    def body_done(self) -> None:
        """Free the slot for another body."""
        if self._held:
            self._held = False
            self._slots.body_done()

    def leave(self) -> None:
        """Free the slot: the attempt is over."""
        if self._held:
            self.body_done()
        self._slots.settled()
