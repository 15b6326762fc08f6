"""The deliveries of one subscription that were handed out before, while it is found out whether a worker works on them.

They do not keep those from their start that are pushed after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from celeriac.contracts.broker import Delivery
from celeriac.servers.rabbitmq.delivery import receipt_of
from celeriac.servers.rabbitmq.orphans import Orphans


class Suspects:
    """Those that are being judged.

    :param offer: is given each delivery that no worker works on.
    """

    def __init__(self, orphans: Orphans, offer: Callable[[Delivery], None]) -> None:
        self._orphans = orphans
        self._offer = offer
        self._judging: dict[asyncio.Task[None], Delivery] = {}

    def all(self) -> Sequence[Delivery]:
        """Return those that are not judged yet."""
        return list(self._judging.values())

    def set_apart(self, taken: Iterable[Delivery]) -> list[Delivery]:
        """Return those that can start, and begin to judge those in the state "checking"."""
        ready = []
        for delivery in taken:
            if receipt_of(delivery).state == "checking":
                task = asyncio.get_running_loop().create_task(self._judge(delivery))
                self._judging[task] = delivery
                task.add_done_callback(self._judging.pop)
            else:
                ready.append(delivery)
        return ready

    async def settle(self) -> None:
        """Return when all are judged that are here now."""
        if self._judging:
            await asyncio.wait(tuple(self._judging))

    async def _judge(self, delivery: Delivery) -> None:
        receipt = receipt_of(delivery)
        await self._orphans.judge(receipt)
        if receipt.state == "buffered":
            self._offer(delivery)
