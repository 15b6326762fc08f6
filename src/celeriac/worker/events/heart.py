"""The worker's heartbeats: monitors see that it lives, and how much it does (Celery: ``worker-heartbeat``).

Rules: a heartbeat that cannot be sent is not kept: the next one says more. While the event loop does not answer, a
thread beats in its place, over connections of its own, and tells for how long.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from time import monotonic
from typing import Any

from celeriac.client.event_sender import EventSender
from celeriac.errors import BrokerUnavailable, CeleriacError
from celeriac.wire.event import EventWriter, WorkerEvent, WorkerHeartbeat, WorkerOffline, WorkerOnline, key_of
from celeriac.worker.events.share import Share
from celeriac.worker.remote import LogicalClock

logger = logging.getLogger("celeriac.worker")

FREQUENCY = 2.0
"""Seconds between heartbeats, as in Celery."""

STUCK = 1.5 * FREQUENCY
"""Seconds without a heartbeat of the event loop after which the thread beats: monitors give up after twice
``FREQUENCY``."""

LAST_EVENTS = 1.0
"""Seconds that the last events have to go out when the worker ends."""


class Heart:
    """Beats for one worker.

    :param active: returns how many tasks run.
    :param processed: returns how many were started.
    :param now: seconds since the epoch.
    """

    def __init__(
        self,
        node: str,
        sender: EventSender,
        clock: LogicalClock,
        now: Callable[[], float],
        share: Share,
        active: Callable[[], int],
        processed: Callable[[], int],
    ) -> None:
        self._node = node
        self._sender = sender
        self._clock = clock
        self._now = now
        self._share = share
        self._active = active
        self._processed = processed
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

    def describe(self, kind: type[Any] = WorkerHeartbeat, lag: float | None = None) -> WorkerEvent:
        """Return an event of this worker, as it stands."""
        sender, share = self._sender, self._share.present
        event: WorkerEvent = kind(
            self._clock.forward(),
            self._now(),
            FREQUENCY,
            self._active(),
            self._processed(),
            _load(),
            *self._software,
            None if share == 1 else round(share, 3),
            sender.dropped,
            lag,
        )
        return event

    async def _beat(self) -> None:
        kind = WorkerOnline
        while True:
            self.last = monotonic()
            self._sender.writer = EventWriter(self._node, os.getpid(), utcoffset())
            try:
                if await self._tell(kind):
                    self._sender.wake()
                kind = WorkerHeartbeat
            except BrokerUnavailable as error:
                logger.debug("no heartbeat could be sent: %s", error)
                kind = WorkerOnline
            await asyncio.sleep(FREQUENCY)

    async def _tell(self, kind: type[Any]) -> bool:
        event = self.describe(kind)
        key = key_of(kind.__struct_config__.tag)
        return await self._sender.publish(self._sender.writer.single(event), key)


class StandIn:
    """Beats from a thread of its own while the event loop does not answer.

    :param publish: publishes a message in another event loop, over connections of that loop, which it closes.
    """

    def __init__(self, heart: Heart, node: str, publish: Callable[..., Awaitable[None]]) -> None:
        self._heart = heart
        self._node = node
        self._publish = publish
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="celeriac-stand-in", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._heart.last = monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(FREQUENCY / 2):
            silent = monotonic() - self._heart.last
            if silent > STUCK:
                with suppress(CeleriacError, OSError, TimeoutError):
                    asyncio.run(self._beat_while_stuck())

    async def _beat_while_stuck(self) -> None:
        raise NotImplementedError


def utcoffset() -> float:
    """Return by how many hours local time is behind UTC now, as Celery's events count it."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600


def _load() -> list[float]:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]
