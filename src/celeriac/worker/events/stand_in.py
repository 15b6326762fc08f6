"""A thread that beats for a worker whose event loop does not answer, such as in a coroutine that only computes.

Rules: it has an event loop and connections of its own, which it opens when it must beat and closes when it need not any
more. Its heartbeats say for how long the worker's loop has been silent, so that a monitor does not give up a worker
which still holds its tasks, and a person sees why they do not end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic

from celeriac.client.app import App
from celeriac.contracts.fanout import Exchange
from celeriac.errors import CeleriacError
from celeriac.wire.event import EventWriter, key_of
from celeriac.worker.events.heart import FREQUENCY, Heart

logger = logging.getLogger("celeriac.worker")

STUCK = 1.5 * FREQUENCY
"""Seconds without a heartbeat after which the loop is asked whether it answers. Monitors wait for twice FREQUENCY."""

PATIENCE = 0.3
"""Seconds that the loop has to answer."""


class StandIn:
    """Stands in for one worker's heart.

    :param loop: the worker's.
    """

    def __init__(self, app: App, node: str, heart: Heart, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._node = node
        self._heart = heart
        self._loop = loop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="celeriac-stand-in", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(FREQUENCY / 2):
            if monotonic() - self._heart.last > STUCK and not self._answers(PATIENCE):
                try:
                    asyncio.run(self._beat())
                except (CeleriacError, OSError, TimeoutError, RuntimeError) as error:
                    logger.debug("no heartbeat could be sent for a loop that does not answer: %s", error)

    def _answers(self, patience: float) -> bool:
        """Whether the worker's loop comes round within so many seconds; also when it is over."""
        came = threading.Event()
        try:
            self._loop.call_soon_threadsafe(came.set)
        except RuntimeError:  # it is closed
            self._ended.set()
            return True
        return came.wait(patience)

    async def _beat(self) -> None:
        """Beat until the worker's loop answers."""
        fanout = self._app.connections().broker.fanout
        exchange = Exchange(self._app.settings.event_exchange, by_key=True)
        writer = EventWriter(self._node, self._heart.pid)
        try:
            while fanout is not None and not self._ended.is_set():
                beat = self._heart.describe(lag=round(monotonic() - self._heart.last, 1))
                await fanout.publish(exchange, writer.single(beat), key_of("worker-heartbeat"))
                if await asyncio.to_thread(self._answers, FREQUENCY):
                    return
        finally:
            await self._app.close()
