"""Keeps a worker from taking from queues that are paused."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from celeriac.client.pausing import Pauses
from celeriac.clock import set_within
from celeriac.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger("celeriac.worker")

RESTING, BETWEEN = 0.5, 15.0
"""Seconds between two looks at the board while a queue of this worker is paused, and while none is."""


class Taker(Protocol):
    """What takes from queues."""

    async def add_queue(self, queue: str) -> None:
        """Take from this queue too."""
        ...

    async def drop_queue(self, queue: str) -> None:
        """Stop taking from this queue."""
        ...


class Pausing:
    """The paused queues of one worker.

    :param queues: those that the worker takes from; a paused one is left out of it.
    """

    def __init__(self, pauses: Pauses, queues: list[str]) -> None:
        self._pauses = pauses
        self._queues = queues
        self._turn = asyncio.Lock()
        self._rests = asyncio.Event()
        self.resting: list[str] = []

    async def follow(self, taker: Taker) -> None:
        """Leave the queues that are paused now, and take again from those that no longer are.

        Raises ``BrokerUnavailable`` when the broker is away, and ``BrokerError`` when a queue may not be taken from. A
        worker that may not read the board knows of no pause.
        """
        async with self._turn:
            paused = await self._load()
            for queue in [queue for queue in self._queues if queue in paused]:
                if queue not in self.resting:
                    self.resting.append(queue)
                    self._rests.set()
                await taker.drop_queue(queue)
            for queue in [queue for queue in self.resting if queue not in paused]:
                await taker.add_queue(queue)
                self.resting.remove(queue)

    async def _load(self) -> frozenset[str]:
        try:
            return await self._pauses.load()
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            logger.debug("it is not known which queues are paused: %s", error)
            return frozenset()

    async def watch(self, taker: Taker) -> None:
        """Follow until cancelled, whatever becomes of the broker."""
        while True:
            if self.resting:
                await asyncio.sleep(RESTING)
            else:
                self._rests.clear()
                await set_within(self._rests, BETWEEN)
            with suppress(BrokerError):  # the next look comes
                await self.follow(taker)
