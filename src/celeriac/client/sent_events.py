"""Tells monitors what an app sends (Celery: ``task_send_sent_event``).

Rules: a send does not wait for its event. While nobody listens, an event is tried every two seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from weakref import WeakKeyDictionary

from celeriac.client.connections import ConnectionTable
from celeriac.client.event_sender import EventSender
from celeriac.client.send_listeners import Done, Outgoing, SendListener
from celeriac.settings import Settings
from celeriac.wire.event import SENT_KEY, EventWriter, TaskSent, described

AGAIN = 2.0
"""Seconds after which an event is tried again that nobody received."""

LAST_EVENTS = 1.0
"""Seconds that the last events have to go out when the app closes."""


class SentEvents(SendListener):
    """Makes the events of one app, in each event loop that it sends from.

    :param now: seconds since the epoch.
    """

    def __init__(self, connections: ConnectionTable, settings: Settings, now: Callable[[], float]) -> None:
        self._connections = connections
        self._exchange = settings.event_exchange
        self._now = now
        self._clock = 0
        self._tried = 0.0
        self._senders: WeakKeyDictionary[asyncio.AbstractEventLoop, EventSender] = WeakKeyDictionary()

    def sending(self, batch: Sequence[Outgoing]) -> Done:
        return partial(self._sent, batch)

    async def finish(self) -> None:
        """Send what is left in the running loop."""
        sender = self._senders.pop(asyncio.get_running_loop(), None)
        if sender is not None:
            await sender.finish(LAST_EVENTS)

    def _sent(self, batch: Sequence[Outgoing], error: BaseException | None) -> None:
        sender = self._sender() if error is None else None
        if sender is None:
            return
        if not sender.wanted:
            if (now := monotonic()) < self._tried + AGAIN:
                return
            self._tried = now
            sender.wake()
        for outgoing in batch if sender.wanted else ():
            self._clock += 1
            sender.put(_event(outgoing, self._clock, self._now()))

    def _sender(self) -> EventSender | None:
        loop = asyncio.get_running_loop()
        sender, pid = self._senders.get(loop), os.getpid()
        fanout = self._connections.current().broker.fanout
        if sender is None and fanout is not None:
            node = f"gen{pid}@{socket.gethostname()}"
            sender = EventSender(fanout, self._exchange, EventWriter(node, pid), SENT_KEY, node)
            self._senders[loop] = sender
        return sender


def _event(outgoing: Outgoing, clock: int, now: float) -> TaskSent:
    return TaskSent(
        clock,
        now,
        *described(outgoing.message),
        outgoing.queue,
        outgoing.exchange,
        outgoing.routing_key,
    )
