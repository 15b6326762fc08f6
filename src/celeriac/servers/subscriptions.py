"""The subscriptions that one broker has open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from celeriac.contracts.broker import Subscription

S = TypeVar("S", bound=Subscription)


class Subscriptions(Generic[S]):
    """Opens subscriptions, and stops them when their block ends, or all of them when the broker closes."""

    def __init__(self) -> None:
        self._open: set[S] = set()

    def __iter__(self) -> Iterator[S]:
        return iter(self._open)

    @asynccontextmanager
    async def hold(self, subscription: S, queues: Sequence[str]) -> AsyncIterator[S]:
        """Have a subscription for the time of the block, on these queues at first."""
        self._open.add(subscription)
        try:
            for queue in queues:
                await subscription.add_queue(queue)
            yield subscription
        finally:
            await subscription.stop()
            self._open.discard(subscription)

    async def stop(self) -> None:
        """Stop all. Idempotent."""
        for subscription in list(self._open):
            await subscription.stop()
