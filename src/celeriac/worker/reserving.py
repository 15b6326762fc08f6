"""Sets how many messages a worker reserves: it holds them, but they cannot start yet."""

from __future__ import annotations

from collections.abc import Callable

from celeriac.contracts.broker import Subscription
from celeriac.worker.slots import Slots


class Reserving:
    """Sets the ``prefetch`` and the ``backlog`` of the subscription that the worker has at the time.

    :param most: how many messages may be held, except during a pause.
    :param backlog: how many may be held for each slot, where no other worker could start them.
    :param slots: those of the worker, for which attempts may wait only while messages may be held.
    :param recall: makes the pool give back what has not begun.
    """

    def __init__(self, most: int, backlog: int, slots: Slots, recall: Callable[[], None]) -> None:
        self._most = most
        self._backlog = backlog
        self._slots = slots
        self._recall = recall
        self._pauses = 0
        self._subscription: Subscription | None = None

    def follow(self, subscription: Subscription) -> None:
        """Set the prefetch of this subscription from now on."""
        self._subscription = subscription
        self._set()

    def pause(self) -> None:
        """Reserve no further messages until ``resume``."""
        self._pauses += 1
        self._set()

    async def let_go(self) -> None:
        """Requeue the messages that are held now. Raises ``BrokerUnavailable``."""
        self._recall()
        if self._subscription is not None:
            await self._subscription.let_go()

    def resume(self) -> None:
        """End a pause."""
        self._pauses -= 1
        self._set()

    def follow_slots(self) -> None:
        """Reserve by the number of slots that there are now."""
        self._set()

    def _set(self) -> None:
        prefetch = 0 if self._pauses else self._most
        self._slots.may_reserve = prefetch > 0
        if self._subscription is not None:
            self._subscription.prefetch = prefetch
            self._subscription.backlog = self._backlog * self._slots.total if prefetch else 0
