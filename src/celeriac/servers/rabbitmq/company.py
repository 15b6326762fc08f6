"""Tells how much one worker may hold of a queue though it cannot start it: something where nobody else takes from it.

Rules: RabbitMQ tells how many consumers a queue has, on a channel of its own. A queue that had another consumer counts
as shared for ``REMEMBERED`` seconds, since a worker of ours that has given back what it cannot start has no consumer,
and is not seen. Of a queue that is not plain nothing is held, whoever takes from it: see ``Topology.is_plain``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from celeriac.servers.rabbitmq.delivery import AmqpReceipt
from celeriac.servers.rabbitmq.protocol.errors import Refused
from celeriac.servers.rabbitmq.topology import Topology

REMEMBERED = 600.0
"""Seconds for which a queue counts as shared after another consumer was seen."""

LONGEST_HELD = 300.0
"""Seconds from its arrival for which a message is held that cannot start.

RabbitMQ closes the channel over one that is not acknowledged within 30 minutes, its run included.
"""

_MOST_HELD = 1000
"""Messages of a queue that are held at the most: they are given back at once."""


class Company:
    """Who else takes from the queues of one subscription.

    :param now: seconds of a clock that never goes back.
    """

    def __init__(self, topology: Topology, now: Callable[[], float]) -> None:
        self._topology = topology
        self._now = now
        self._alone: set[str] = set()
        self._shared: dict[str, float] = {}  # by queue: until when it counts as shared

    def most(self, queue: str, backlog: int) -> int:
        """Return how many messages of a queue may be held, by the last look.

        :param backlog: how many that is where nobody else takes from it.
        """
        return min(backlog, _MOST_HELD) if queue in self._alone else 0

    def may_have_left(self) -> bool:
        """Whether a queue has counted as shared for so long that ``look`` would look again."""
        return bool(self._shared) and min(self._shared.values()) <= self._now()

    async def look(self, queue: str, ours: int) -> None:
        """See whether anybody else takes from a queue. Raises ``Unavailable``.

        :param ours: how many consumers of the queue are ours.
        """
        if self._shared.get(queue, 0.0) > self._now():
            return
        until = await self._shared_until(queue, ours)
        self.forget(queue)
        if until is None:
            self._alone.add(queue)
        else:
            self._shared[queue] = until

    def is_held_long(self, receipt: AmqpReceipt) -> bool:
        """Whether a message has been here for so long that it should go back."""
        return self._now() - receipt.arrived > LONGEST_HELD

    def forget(self, queue: str) -> None:
        """Forget what was seen of a queue."""
        self._alone.discard(queue)
        self._shared.pop(queue, None)

    async def _shared_until(self, queue: str, ours: int) -> float | None:
        """Return until when a queue is to count as shared; ``None`` where it is not."""
        try:
            if not await self._topology.is_plain(queue):
                return math.inf
            _, consumers = await self._topology.count_both(queue)
        except Refused:
            return math.inf
        return self._now() + REMEMBERED if consumers > ours else None
