"""Watches a fleet: hears its events, keeps what became of its tasks, and says what is there now.

Rules: events are heard by one task and written by another thread in steps, so that a slow disk loses nothing until
``MOST_BEHIND`` events wait; then the events of tasks that went well are left out first, and the number is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from celeriac.client.app import App
from celeriac.clock import Clock, SystemClock
from celeriac.contracts.fanout import Binding, Exchange
from celeriac.errors import CeleriacError
from celeriac.monitor.actions import Actions, Lately
from celeriac.monitor.fleet import Fleet
from celeriac.monitor.history import History
from celeriac.monitor.jobs import Jobs
from celeriac.monitor.kept import Kept
from celeriac.monitor.masking import NAMES, Mask
from celeriac.monitor.queues import Queues
from celeriac.monitor.served import Served
from celeriac.retry import Backoff
from celeriac.wire.event import EVENTS, Event, read_events

logger = logging.getLogger(__name__)

PAUSE = 0.25
"""Seconds between two steps in which events are written."""

SWEEP = 60.0
"""Seconds between two looks for what is too old."""

MOST_BEHIND = 100_000
"""Events that wait to be written before some are left out."""

_DISPENSABLE = frozenset({"task-sent", "task-received", "task-started", "task-succeeded", "task-progress"})


class Monitor:
    """Watches the workers of an app's broker.

    :param path: of the file that keeps the history, or the URL of a PostgreSQL database.
    :param mask: names whose values are hidden.

    Within ``async with`` it listens.
    """

    def __init__(
        self,
        app: App,
        path: Path | str,
        *,
        mask: tuple[str, ...] = NAMES,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    ) -> None:
        self.app = app
        self.clock = clock
        self.mask = Mask(mask)
        self.fleet = Fleet()
        self.served = Served(clock)
        self.queues = Queues(clock, self.served)
        self.jobs = Jobs()
        self.kept = Kept(clock)
        self.history = History(path, mask=self.mask, now=clock.now)
        self.actions = Actions(app, self.history, Lately(clock), self.served)
        self.left_out = 0
        self.trouble = ""
        self._heard: deque[Event] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.history.open()
        works = (self._listen(), self._write(), self._sweep(), self.served.follow(self.app))
        self._tasks = [asyncio.create_task(work) for work in works]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.jobs.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write_heard()
        await self.history.close()

    def forget(self) -> None:
        """Ask the broker again next time: something was changed."""
        self.queues.forget()
        self.kept.forget()

    async def _listen(self) -> None:
        """Hear events until cancelled; an outage of the broker is waited for."""
        backoff = Backoff(0.5, 10.0)
        while True:
            try:
                async with self._events() as events:
                    self.trouble = ""
                    backoff.reset()
                    async for event in events:
                        self._take(event)
            except CeleriacError as error:
                self.trouble = str(error)
                logger.warning("no events from the broker: %s", error)
            await asyncio.sleep(backoff.pause())

    @asynccontextmanager
    async def _events(self) -> AsyncIterator[AsyncIterator[Event]]:
        fanout = self.app.connections().broker.fanout
        if fanout is None:
            raise CeleriacError("this broker has no events")
        exchange = Exchange(EVENTS, by_key=True)
        async with fanout.listen([Binding(exchange=exchange, key="#")]) as heard:
            await self._wake()

            async def each() -> AsyncIterator[Event]:
                async for message in heard:
                    for event in read_events(message, self.app.codecs):
                        yield event

            yield each()

    async def _wake(self) -> None:
        """Let workers that kept silent, since nobody listened, tell of themselves at once."""
        await self.app.control.tell("heartbeat")

    def _take(self, event: Event) -> None:
        if event.type.startswith("worker-"):
            self.fleet.hear(event.type, event.node, event.fields, self.clock.now())
            self.served.meet(event.node)
            return
        if len(self._heard) >= MOST_BEHIND and event.type in _DISPENSABLE:
            self.left_out += 1
            return
        self._heard.append(event)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            if self._heard:
                await self._write_heard()

    async def _write_heard(self) -> None:
        events = [event.fields for event in self._heard]
        self._heard.clear()
        try:
            await self.history.take(events)
        except Exception:
            logger.exception("%d events were not written to the history", len(events))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self.history.sweep()
            except Exception:
                logger.exception("the history was not swept")
