"""Sets how many messages a worker reserves: it holds them, but they cannot start yet."""

from __future__ import annotations

from celeriac.contracts.broker import Subscription


class Reserving:
    """Sets the ``prefetch`` of the subscription that the worker has at the time.

    :param most: how many messages may be held, except during a pause.
    """

    def __init__(self, most: int) -> None:
        self._most = most
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
        if self._subscription is not None:
            await self._subscription.let_go()

    def resume(self) -> None:
        """End a pause."""
        self._pauses -= 1
        self._set()

    def _set(self) -> None:
        if self._subscription is not None:
            self._subscription.prefetch = 0 if self._pauses else self._most
