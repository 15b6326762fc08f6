"""The queues that workers take from, by their own answers: RabbitMQ cannot list queues, and Celery's events name none.

Rules: a worker is asked when it is first heard, and while it is heard again once in ``AGAIN`` seconds. A queue that was
told of once is known from then on: also what waits where no worker takes from is to be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from celeriac.client.app import App
from celeriac.clock import Clock
from celeriac.errors import CeleriacError

AGAIN = 60.0
PAUSE = 2.0
"""Seconds between two questions: workers that start together are asked together."""

ASKED = 2.0
"""Seconds that workers have to answer."""

MOST = 10_000
"""Queues that are remembered, and as many workers."""


class Served:
    """Which worker takes from which queues.

    :param clock: tells when a worker was asked.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: dict[str, Sequence[str]] = {}
        self._names: dict[str, None] = {}
        self._asked: dict[str, float] = {}
        self._due: set[str] = set()
        self._news = asyncio.Event()

    @property
    def names(self) -> Sequence[str]:
        """All of these queues, in the order in which they were told of."""
        return list(self._names)

    def of(self, node: str) -> Sequence[str]:
        """Return the queues of a worker; none where it has not answered."""
        return self._queues.get(node, ())

    def meet(self, node: str) -> None:
        """Have a worker that was heard asked, if it was not of late; one whose name is no text is none."""
        now = self._clock.monotonic()
        if now - self._asked.get(node, now - AGAIN) < AGAIN or not node.isprintable():
            return
        self._asked.pop(node, None)
        self._asked[node] = now  # the last: the first was not heard for longest
        if len(self._asked) > MOST:
            gone = next(iter(self._asked))
            del self._asked[gone]
            self._queues.pop(gone, None)
        self._due.add(node)
        self._news.set()

    async def follow(self, app: App) -> None:
        """Ask the workers that are due, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            nodes, self._due = sorted(self._due), set()
            try:
                asked = await app.control.ask("active_queues", destination=nodes, timeout=ASKED)
            except CeleriacError:
                for node in nodes:
                    self._asked.pop(node, None)  # its next heartbeat has it asked again
            else:
                for node, told in asked.by_node.items():
                    self.learn(node, told)
            await asyncio.sleep(PAUSE)

    def learn(self, node: str, told: object) -> None:
        """Take in what a worker answered to ``active_queues``."""
        items = told if isinstance(told, list) else []
        names = [item.get("name") for item in items[:MOST] if isinstance(item, dict)]
        self._queues[node] = tuple(name for name in names if isinstance(name, str) and name)
        for name in self._queues[node][: MOST - len(self._names)]:
            self._names[name] = None
