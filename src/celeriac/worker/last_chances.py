"""Runs messages on their last delivery one at a time, so that a message that kills its worker harms no other.

A dying worker held many messages, and no one can tell which of them killed it: each of them counts one delivery more.
Rules: among the messages that may not be delivered again, a worker runs one at a time, and starts it once the others
were given back to the broker for a while. The worker reserves no messages meanwhile: they would lose a delivery with
the worker's death, without ever having run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from celeriac.contracts.broker import Delivery
from celeriac.wire.task import TaskMessage
from celeriac.worker.gate import Hold, Run
from celeriac.worker.insist import Insist
from celeriac.worker.reserving import Reserving

QUIET = 0.1
"""Seconds before such a message begins: others that a dead worker held are taken, and given back, within this time."""

LEAST, SPACING = 0.5, 0.2
"""Seconds for which another such message is parked at least, and seconds between the due times of two of them."""

logger = logging.getLogger("celeriac.worker")


class LastChances:
    """Decides which of the messages on their last delivery runs in one worker.

    :param now: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float], reserving: Reserving, insist: Insist) -> None:
        self._now = now
        self._reserving = reserving
        self._insist = insist
        self._running: Delivery | None = None
        self._leaving: dict[int, Delivery] = {}
        self._nobody_leaves = asyncio.Event()
        self._last_return = 0.0

    async def enter(self, message: TaskMessage, delivery: Delivery) -> Run | Hold:
        """Return ``Run`` if no other message on its last delivery runs here, else ``Hold``; ``leave`` must follow."""
        if self._running is not None:
            self._leaving[id(delivery)] = delivery
            logger.warning(
                "%s[%s] has one delivery left and waits: another such message runs here",
                message.task,
                message.id,
            )
            self._last_return = max(self._last_return, self._now() + LEAST) + SPACING
            return Hold(message, self._last_return)
        self._running = delivery
        self._reserving.pause()
        await self._insist(self._reserving.let_go, "giving back what was reserved")
        await asyncio.sleep(QUIET)
        while self._leaving:
            self._nobody_leaves.clear()
            await self._nobody_leaves.wait()
        return Run(message)

    def leave(self, delivery: Delivery) -> None:
        """Note that a message which entered is done with here."""
        if self._running is delivery:
            self._running = None
            self._reserving.resume()
        elif self._leaving.pop(id(delivery), None) and not self._leaving:
            self._nobody_leaves.set()
