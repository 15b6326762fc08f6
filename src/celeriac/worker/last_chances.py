"""Keeps apart the messages that are delivered for the last time, so that who kills its worker takes no other along.

A worker that dies had many messages, and nobody knows of which one it died: all of them count one delivery more.
Rules: of those that have no further delivery left one runs in a worker at a time; it begins when all others of their
kind have been given back for a while. Nothing is reserved beside it: that would be lost with the worker, and would have
one delivery more without ever having run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from celeriac.broker import Delivery
from celeriac.wire.task import TaskMessage
from celeriac.worker.gate import Hold, Run
from celeriac.worker.insist import Insist
from celeriac.worker.reserving import Reserving

QUIET = 0.1
"""Seconds before it begins: what came back together is taken within that time, and given back."""

LEAST, SPACING = 0.5, 0.2
"""Seconds for which another is given back, and between the returns of two."""

logger = logging.getLogger("celeriac.worker")


class LastChances:
    """Who may run in one worker of those that are delivered for the last time.

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
        """Return whether the message runs now, and nothing of its kind beside it; ``leave`` must follow."""
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
        """Note that a message is settled, or another's; no matter whether it had entered."""
        if self._running is delivery:
            self._running = None
            self._reserving.resume()
        elif self._leaving.pop(id(delivery), None) and not self._leaving:
            self._nobody_leaves.set()
