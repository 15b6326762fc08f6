"""Watches a fleet for Prometheus, in a process of its own.

Rules: an outage of the broker is waited out; what was counted stays. Workers are asked now and then which queues they
take from, and never because of a scrape.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from celeriac.client.app import App
from celeriac.clock import set_within
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.metrics.counts import Snapshot
from celeriac.metrics.fleet import FleetCounts
from celeriac.probes.asking import Asking
from celeriac.probes.health import ASK as PING
from celeriac.probes.health import ASK_AGAIN as PING_AGAIN
from celeriac.retry import Backoff

logger = logging.getLogger("celeriac.metrics")

ASK = 30.0
"""Seconds between two questions to the workers, which queues they take from; a worker that is new is asked at once."""

GATHER = 0.5
"""Seconds in which further new workers may come up before they are asked together."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class Exporter:
    """Counts what the workers of an app's broker tell.

    :param enable: ask the workers for events of tasks, in case they send none yet.
    :param sender: the label ``hostname`` of what is sent, in place of the sender's host.
    """

    def __init__(self, app: App, *, enable: bool = True, sender: str | None = None) -> None:
        self._app = app
        self._enable = enable
        self._counts = FleetCounts(app.clock.now, sender)
        self._news = asyncio.Event()
        self._broker = Asking(PING, PING_AGAIN)

    def snapshots(self) -> Sequence[Snapshot]:
        """Return the numbers of each host; any thread may call this."""
        return self._counts.snapshots()

    @property
    def broker_up(self) -> bool | None:
        """Whether the broker answered the latest question; ``None`` before the first was dealt with."""
        return self._broker.answers

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Count within the block, which is entered at once. Raises ``BrokerError`` at its end if the broker refused."""
        ping = self._app.connections().broker.ping
        tasks = [asyncio.create_task(one) for one in (self._listen(), self._ask(), self._broker.run(ping))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _listen(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                async with self._app.events.listen(enable=self._enable) as events:
                    backoff.reset()
                    async for event in events:
                        if event.type.startswith("worker-") and not self._counts.knows(event.node):
                            self._news.set()
                        self._counts.take(event)
            except BrokerError as error:
                wait = backoff.pause()
                logger.warning("no events are heard, again in %.1f s: %s", wait, error)
                await asyncio.sleep(wait)

    async def _ask(self) -> None:
        while True:
            try:
                queues = (await self._app.control.ask("active_queues")).by_node
                stats = (await self._app.control.ask("stats")).by_node
                self._counts.note_workers(queues, stats)
                if self._enable:
                    await self._app.control.tell("enable_events")  # workers that have started since
            except BrokerUnavailable as error:
                logger.debug("workers cannot be asked: %s", error)
            except BrokerError as error:
                logger.warning("workers cannot be asked which queues they take from: %s", error)
                return
            await set_within(self._news, ASK)
            await asyncio.sleep(GATHER)
            self._news.clear()
