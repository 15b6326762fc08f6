"""Sends events to monitors, in batches.

Rules: taking an event in never waits and never fails. What comes up while a batch is under way goes with the next one.
While the broker is away the newest events are kept and the oldest are dropped and counted. After a batch that no
monitor received, ``wanted`` is false, and the caller makes no events until ``wake``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from time import monotonic

from celeriac.contracts.fanout import Exchange, Fanout, KnowsListeners
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.retry import Backoff
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import EventWriter, TaskEvent

logger = logging.getLogger("celeriac.events")

BUFFERED = 10_000
"""Events that are kept while the broker is away."""

BATCH, BATCH_BYTES = 300, 64 * 1024
"""The most events of one message, as many as 100 tasks have, and the most bytes, unless a single event has more."""

PAUSE = 0.05
"""Seconds between batches that are not full: a message costs as much as the events of some tasks."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class EventSender:
    """Sends the events of one node under one routing key.

    :param source: what cannot be seen where the broker refuses the events, for the log.
    :ivar sent: events that reached a monitor.
    :ivar dropped: events that were dropped because the broker was away for long.
    :ivar listeners: how many received the last message; ``None`` for some, uncounted.
    :ivar wanted: whether a monitor may listen.
    :ivar refused: whether the broker has refused to carry events; then none are sent any more.
    """

    def __init__(self, fanout: Fanout, exchange: str, writer: EventWriter, key: str, source: str) -> None:
        self._fanout = fanout
        self.exchange = Exchange(exchange, by_key=True)
        self.writer = writer
        self._key = key
        self._source = source
        self._buffer: deque[TaskEvent] = deque(maxlen=BUFFERED)
        self._sending: asyncio.Task[None] | None = None
        self._last_sent = 0.0
        self._usual_size = BATCH_BYTES / BATCH
        self.sent = self.dropped = 0
        self.listeners: int | None = 0
        self.wanted = True
        self.refused = False

    def put(self, event: TaskEvent) -> None:
        """Take an event in."""
        if len(self._buffer) == BUFFERED:
            self.dropped += 1
        self._buffer.append(event)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="celeriac-events")

    def wake(self) -> None:
        """Send events again: a monitor may listen now."""
        self.wanted = not self.refused

    def is_deserted(self, key: str) -> bool:
        """Whether it is known, without asking the broker, that no monitor would receive a message."""
        return isinstance(self._fanout, KnowsListeners) and self._fanout.is_deserted(self.exchange, key)

    async def publish(self, envelope: Envelope, key: str) -> bool:
        """Publish one message at once; return whether it reached a monitor.

        Raises ``BrokerUnavailable``. A refusal is logged, and ends all sending.
        """
        if self.refused:
            return False
        try:
            self.listeners = await self._fanout.publish(self.exchange, envelope, key)
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            self.refused, self.wanted = True, False
            logger.warning("monitors do not see %s: %s", self._source, error)
            return False
        return self.listeners != 0

    async def finish(self, timeout: float) -> None:
        """Send what is left, for ``timeout`` seconds at most; the rest is dropped."""
        sending = self._sending
        if sending is not None:
            await asyncio.wait([sending], timeout=timeout)
            sending.cancel()

    async def _send_all(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while self._buffer:
                if len(self._buffer) < BATCH and (left := self._last_sent + PAUSE - monotonic()) > 0:
                    await asyncio.sleep(left)
                batch, message = self._next_batch()
                try:
                    reached = await self.publish(message, self._key)
                except BrokerUnavailable as error:
                    self._put_back(batch)
                    logger.debug("events cannot be sent, and are tried again: %s", error)
                    await asyncio.sleep(backoff.pause())
                    continue
                backoff.reset()
                self._last_sent = monotonic()
                if reached:
                    self.sent += len(batch)
                else:
                    self.wanted = False
                    self._buffer.clear()
        finally:
            self._sending = None

    def _next_batch(self) -> tuple[list[TaskEvent], Envelope]:
        """Take as many events as one message may hold; return them and the message."""
        buffer, count = self._buffer, min(BATCH, max(1, int(BATCH_BYTES / self._usual_size)))
        batch = [buffer.popleft() for _ in range(min(count, len(buffer)))]
        message = self.writer.message(batch)
        while len(message.body) > BATCH_BYTES and len(batch) > 1:
            kept = len(batch) // 2
            buffer.extendleft(reversed(batch[kept:]))
            batch = batch[:kept]
            message = self.writer.message(batch)
        self._usual_size = len(message.body) / len(batch)
        return batch, message

    def _put_back(self, batch: Sequence[TaskEvent]) -> None:
        room = BUFFERED - len(self._buffer)
        lost = max(0, len(batch) - room)
        self.dropped += lost
        self._buffer.extendleft(reversed(list(islice(batch, lost, None))))
