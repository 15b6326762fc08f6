"""The worker's heartbeats: monitors see that it lives, and how much it does (Celery: ``worker-heartbeat``).

Rules: a heartbeat that cannot be sent is not kept: the next one says more; one that nobody would receive is left out,
where that is known without asking the broker. While the event loop does not answer, the stand-in beats in its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from time import monotonic
from typing import Any

from celeriac.client.event_sender import EventSender
from celeriac.errors import BrokerUnavailable, CeleriacError
from celeriac.wire.event import EventWriter, WorkerEvent, WorkerHeartbeat, WorkerOffline, WorkerOnline, key_of
from celeriac.worker.events.announcer import Announcer
from celeriac.worker.events.share import Share
from celeriac.worker.logical_clock import LogicalClock

logger = logging.getLogger("celeriac.worker")

FREQUENCY = 2.0
"""Seconds between heartbeats, as in Celery."""

LAST_EVENTS = 1.0
"""Seconds that the last events have to go out when the worker ends."""


class Heart:
    """Beats for one worker.

    :param now: seconds since the epoch.
    :param announcer: counts the tasks that were started.
    :ivar active: returns how many tasks run.
    :ivar on_beat: called at each heartbeat, unless the broker is away.
    :ivar last: when it last beat, in seconds of ``time.monotonic``.
    """

    def __init__(
        self,
        node: str,
        sender: EventSender,
        clock: LogicalClock,
        now: Callable[[], float],
        share: Share,
        announcer: Announcer,
    ) -> None:
        self._node = node
        self._sender = sender
        self._clock = clock
        self._now = now
        self._share = share
        self._announcer = announcer
        self.active: Callable[[], int] = int
        self.on_beat: Callable[[], None] = _nothing
        self.pid = os.getpid()
        self._software = ("celeriac", version("celeriac"), platform.system())
        self._beating: asyncio.Task[None] | None = None
        self.last = monotonic()

    def start(self) -> None:
        """Tell that the worker is there, and go on telling."""
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="celeriac-heart")

    async def stop(self) -> None:
        """Tell that the worker has ended."""
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
            await asyncio.wait([beating])
            with suppress(CeleriacError, TimeoutError):
                async with asyncio.timeout(LAST_EVENTS):
                    await self._tell(WorkerOffline)

    async def beat_once(self) -> None:
        """Send a heartbeat now. Raises ``BrokerUnavailable``."""
        if await self._tell(WorkerHeartbeat):
            self._sender.wake()

    @property
    def sampled(self) -> float:
        """The share of tasks that events tell of."""
        return float(f"{self._share.present:.3g}")

    def describe(self, kind: type[Any] = WorkerHeartbeat, lag: float | None = None) -> WorkerEvent:
        """Return an event of this worker, as it stands."""
        event: WorkerEvent = kind(
            self._clock.forward(),
            self._now(),
            FREQUENCY,
            self.active(),
            self._announcer.processed,
            _load(),
            *self._software,
            None if self.sampled == 1 else self.sampled,
            self._sender.dropped,
            lag,
        )
        return event

    async def _beat(self) -> None:
        kind: type[Any] = WorkerOnline
        while True:
            self.last = monotonic()
            self._sender.writer = EventWriter(self._node, self.pid, utcoffset())
            try:
                if not self._sender.is_deserted(_key(kind)) and await self._tell(kind):
                    self._sender.wake()
                kind = WorkerHeartbeat
                self.on_beat()
            except BrokerUnavailable as error:
                logger.debug("no heartbeat could be sent: %s", error)
                kind = WorkerOnline
            await asyncio.sleep(FREQUENCY)

    async def _tell(self, kind: type[Any]) -> bool:
        event = self.describe(kind)
        return await self._sender.publish(self._sender.writer.single(event), _key(kind))


def _nothing() -> None:
    """Stand in for a listener."""


def _key(kind: type[Any]) -> str:
    return key_of(kind.__struct_config__.tag)


def utcoffset() -> float:
    """Return by how many hours local time is behind UTC now, as Celery's events count it."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600


def _load() -> list[float]:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]
