"""What a worker has taken from its queues and not dealt with: what it holds, and its attempts.

Rules: an attempt is here from its start to its end. What waits in a queue belongs to no worker; only ``catch_up`` looks
at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from celeriac.clock import set_within
from celeriac.contracts.broker import Broker, Delivery, Subscription
from celeriac.errors import BrokerError
from celeriac.worker.attempt import Attempt
from celeriac.worker.slots import Slots

CATCH_UP = 0.25
"""Seconds that an answer of remote control waits for messages to be taken: who asks waits for a second."""


class Intake:
    """The intake of one worker.

    :param queues: those that the worker takes from now.
    :ivar attempts: those that are under way.
    :ivar taken: set when messages are taken.
    :ivar subscription: the hold on the queues; ``None`` before the first.
    """

    def __init__(self, broker: Broker, queues: Sequence[str], slots: Slots) -> None:
        self.attempts: set[Attempt] = set()
        self.subscription: Subscription | None = None
        self._broker = broker
        self._queues = queues
        self._slots = slots
        self.taken = asyncio.Event()

    def held(self) -> Sequence[Delivery]:
        """Return the messages that were taken from their queues and have no slot yet."""
        waiting = [attempt.delivery for attempt in self._slots.waiting if attempt.task is not None]
        return waiting if self.subscription is None else [*waiting, *self.subscription.held()]

    def not_begun(self) -> Sequence[Attempt]:
        """Return the attempts whose tasks were not called: they are being read, or are about to be settled."""
        return [attempt for attempt in self.attempts if attempt.task is None]

    async def catch_up(self) -> None:
        """Return once nothing waits in the queues, or no slot is free, or after ``CATCH_UP`` seconds.

        A worker that is asked just after a message was sent may hear the question before it takes the message.
        """
        deadline = asyncio.get_running_loop().time() + CATCH_UP
        with suppress(BrokerError):  # what cannot be counted is not waited for
            while await self._is_behind():
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or not await set_within(self.taken, left):
                    return

    async def _is_behind(self) -> bool:
        self.taken.clear()
        for queue in tuple(self._queues):
            if self._slots.free and await self._broker.depth(queue):
                return True
        return False
