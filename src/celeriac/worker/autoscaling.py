"""Switches scaling on, and changes its bounds, while a worker runs (Celery: ``autoscale``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from celeriac.worker.scaling import Scaling


class Autoscaler:
    """The scaling of one worker, which is off until ``update``.

    :param size: returns how many tasks may run at once.
    :param resize: sets that number.
    """

    def __init__(
        self, scaling: Scaling, size: Callable[[], int], resize: Callable[[int], Awaitable[object]]
    ) -> None:
        self.scaling = scaling
        self._size = size
        self._resize = resize
        self._running: asyncio.Task[None] | None = None

    @property
    def is_on(self) -> bool:
        """Whether it scales."""
        return self._running is not None

    async def update(self, most: int | None, least: int | None) -> None:
        """Scale between these numbers from now on; ``None`` keeps one. Raises ``ValueError`` for what are no bounds."""
        scaling = self.scaling
        most = scaling.most if most is None else most
        least = min(scaling.least, most) if least is None else least
        if not 0 < least <= most:
            raise ValueError(f"autoscale max={most} min={least}: give a max, and a min from 1 to that")
        scaling.most, scaling.least = most, least
        if self._size() != (size := min(max(self._size(), least), most)):
            await self._resize(size)
        self.start()

    def start(self) -> None:
        """Scale between the bounds that there are."""
        if self._running is None:
            self._running = asyncio.create_task(self.scaling.run(), name="celeriac-scaling")

    def end(self) -> None:
        """Scale no more."""
        if self._running is not None:
            self._running.cancel()
