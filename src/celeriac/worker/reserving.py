"""How many messages a worker holds that cannot start yet."""

from __future__ import annotations

from celeriac.broker import Subscription


class Reserving:
    """Sets the ``prefetch`` of the subscription that the worker has at the time.

    :param most: how many may be held, but for when something is to run with nothing held beside it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pauses = 0
        self._subscription: Subscription | None = None

    def follow(self, subscription: Subscription) -> None:
        """Take charge of this subscription."""
        self._subscription = subscription
        self._set()

    def pause(self) -> None:
        """Let no more be held until ``resume``."""
        self._pauses += 1
        self._set()

    async def let_go(self) -> None:
        """Give back what is held now. Raises ``BrokerUnavailable``."""
        if self._subscription is not None:
            await self._subscription.let_go()

    def resume(self) -> None:
        """End a pause."""
        self._pauses -= 1
        self._set()

    def _set(self) -> None:
        if self._subscription is not None:
            self._subscription.prefetch = 0 if self._pauses else self._most
