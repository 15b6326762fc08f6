"""The calls about queues that share round trips with those of concurrent callers, whatever the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from celeriac.errors import DeliveryLost
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.queue_rows import NewMessage, Settlement

_BATCH = 1000
"""Calls that share one round trip."""

Addition = tuple[str, Sequence[NewMessage]]
"""A key, and the messages that are published once under it."""

Tick = tuple[str, float, Sequence[NewMessage]]
"""An entry, its slot, and the messages of that slot."""


STAYS = {"requeue", "return", "park"}
"""How a message is settled that stays in its queue."""


class QueueCalls:
    """Each parameter does many such calls in one round trip, and returns the answer to each.

    :param add: adds messages.
    :param add_once: adds what is not done under its key yet; tells of each whether it was added.
    :param tick: adds the messages of each slot that is later than its entry's last one; tells of each whether it was.
    :param forget_once: forgets keys a while after.
    :param settle: settles messages, and takes down what marks go with them.
    """

    def __init__(
        self,
        add: Callable[[Sequence[NewMessage]], Awaitable[Sequence[None]]],
        add_once: Callable[[Sequence[Addition]], Awaitable[Sequence[bool]]],
        tick: Callable[[Sequence[Tick]], Awaitable[Sequence[bool]]],
        forget_once: Callable[[Sequence[str]], Awaitable[Sequence[None]]],
        settle: Callable[[Sequence[Settlement]], Awaitable[Sequence[DeliveryLost | None]]],
    ) -> None:
        self.publish: Coalescer[NewMessage, None] = Coalescer(add, _BATCH, lambda message: len(message.frame))
        self.publish_once: Coalescer[Addition, bool] = Coalescer(add_once, _BATCH)
        self.tick: Coalescer[Tick, bool] = Coalescer(tick, _BATCH)
        self.forget_once: Coalescer[str, None] = Coalescer(forget_once, _BATCH)
        self.settle: Coalescer[Settlement, None] = Coalescer(settle, _BATCH)

    async def drain(self) -> None:
        """Return when everything asked for so far was answered."""
        await self.publish.drain()
        await self.publish_once.drain()
        await self.tick.drain()
        await self.forget_once.drain()
        await self.settle.drain()
