"""The messages that RabbitMQ pushed to one subscription and that ``take`` has not handed out, in a line a queue."""

from __future__ import annotations

from collections import deque
from itertools import islice

from celeriac.contracts.broker import Delivery
from celeriac.servers.rabbitmq.delivery import receipt_of
from celeriac.wire.envelope import Unreadable


class Pushed:
    """The lines of one subscription.

    :ivar lines: by queue; of a queue that is being dropped the line is there until the last message is back.
    :ivar queues: those that are taken from, in the order of their turns.
    """

    def __init__(self, *, lowest_first: bool) -> None:
        self._lowest_first = lowest_first
        self.lines: dict[str, deque[Delivery]] = {}
        self.queues: deque[str] = deque()

    def __len__(self) -> int:
        return sum(map(len, self.lines.values()))

    def add_queue(self, queue: str) -> None:
        """Have a line for a queue."""
        self.lines[queue] = deque()
        self.queues.append(queue)

    def all(self) -> list[Delivery]:
        """Return every message."""
        return [delivery for line in self.lines.values() for delivery in line]

    def filled(self) -> list[str]:
        """Return the queues in whose lines messages are."""
        return [queue for queue, line in self.lines.items() if line]

    def put_back(self, delivery: Delivery) -> None:
        """Put a message before those that were pushed after it."""
        line, tag = self.lines[delivery.queue], receipt_of(delivery).message.tag
        later = (at for at, other in enumerate(line) if receipt_of(other).message.tag > tag)
        line.insert(next(later, len(line)), delivery)

    def cut(self, queue: str, most: int) -> list[Delivery]:
        """Leave that many messages of a queue in its line, the first; return the others."""
        line = self.lines.get(queue, deque())
        left = list(islice(line, most, None))
        for _ in left:
            line.pop()
        return left

    def pick(self, limit: int) -> list[Delivery]:
        """Take by priority over all the queues; among equals the queues take turns."""
        taken: list[Delivery] = []
        if len(self.queues) == 1:
            line = self.lines[self.queues[0]]
            while line and len(taken) < limit:
                taken.append(line.popleft())
            return taken
        while len(taken) < limit:
            ready = [queue for queue in self.queues if self.lines[queue]]
            if not ready:
                break
            queue = min(ready, key=lambda name: self._rank(self.lines[name][0]))
            self.queues.remove(queue)
            self.queues.append(queue)
            taken.append(self.lines[queue].popleft())
        return taken

    def _rank(self, delivery: Delivery) -> int:
        priority = 0 if isinstance(delivery.envelope, Unreadable) else delivery.envelope.priority
        return priority if self._lowest_first else -priority
