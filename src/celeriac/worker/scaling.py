"""Changes how many tasks a worker runs at once by how many there are.

Rules: it grows as soon as every slot is taken, and shrinks only after the surplus was idle for a while, since tasks
come in bursts and a child process takes long to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

LOOK = 0.5
"""Seconds between two looks."""

KEEP = 30.0
"""Seconds for which a surplus is kept (Celery: ``AUTOSCALE_KEEPALIVE``)."""


class Scaling:
    """Keeps the number of tasks at once between two bounds.

    :param least: tasks at once where nothing is to be done.
    :param most: tasks at once where there is much to be done.
    :param busy: returns how many tasks run.
    :param size: returns how many may run at once.
    :param grow: lets so many more run at once.
    :param shrink: lets so many fewer run at once.
    """

    def __init__(
        self,
        least: int,
        most: int,
        *,
        busy: Callable[[], int],
        size: Callable[[], int],
        grow: Callable[[int], Awaitable[object]],
        shrink: Callable[[int], Awaitable[object]],
        keep: float = KEEP,
        look: float = LOOK,
    ) -> None:
        self.least = max(least, 1)
        self.most = most
        self._busy = busy
        self._size = size
        self._grow = grow
        self._shrink = shrink
        self._keep = keep
        self._look = look
        self._wanted = 0
        self._since = monotonic()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._look)
            await self.adjust(monotonic())

    async def adjust(self, now: float) -> None:
        """Look once.

        :param now: seconds of ``time.monotonic``.
        """
        busy, size = self._busy(), self._size()
        if busy >= size and size < self.most:
            # Half as many more at each look: as many as there are is known only when they run.
            await self._grow(min(self.most - size, max(1, size // 2)))
            self._begin_anew(now, busy)
            return
        self._wanted = max(self._wanted, busy)
        if now - self._since >= self._keep:
            if (target := max(self.least, self._wanted)) < size:
                await self._shrink(size - target)
            self._begin_anew(now, busy)

    def _begin_anew(self, now: float, busy: int) -> None:
        self._since = now
        self._wanted = busy
