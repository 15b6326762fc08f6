"""Hears the events of workers and senders, celeriac's and Celery's: ``app.events`` (Celery: ``app.events.Receiver``).

Rules: a lost connection ends nothing; a reader that is too slow loses the oldest, and can see how much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from celeriac.client.connections import ConnectionTable
from celeriac.client.control import Control
from celeriac.contracts.fanout import Binding, Exchange, Listening
from celeriac.errors import BrokerError, ConfigError
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.event import Event, read_events

KEEP, KEEP_QUEUE = 5.0, 60.0
"""Seconds that RabbitMQ keeps an event for a reader, and the queue of a reader that is gone, as in Celery."""


class EventStream:
    """The events as they come; an asynchronous iterator that does not end.

    Raises ``BrokerError`` when the broker refuses to let it listen again after its connection was lost.
    """

    def __init__(self, heard: Listening, codecs: Codecs) -> None:
        self._heard = heard
        self._codecs = codecs
        self._next: deque[Event] = deque()

    @property
    def dropped(self) -> int:
        """How many messages were dropped since they were not read in time; each has one event or some hundred."""
        return self._heard.dropped

    @property
    def cuts(self) -> int:
        """How often the connection was lost; the events of the time without it are lost, too."""
        return self._heard.cuts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._next:
            self._next.extend(read_events(await anext(self._heard), self._codecs))
        return self._next.popleft()


class EventReader:
    """Hears the events on an app's broker."""

    def __init__(
        self, connections: ConnectionTable, settings: Settings, codecs: Codecs, control: Control
    ) -> None:
        self._connections = connections
        self._exchange = Exchange(settings.event_exchange, by_key=True)
        self._codecs = codecs
        self._control = control

    @asynccontextmanager
    async def listen(self, key: str = "#", *, enable: bool = False) -> AsyncIterator[EventStream]:
        """Hear, within the block, every event from now on; workers are asked for a heartbeat, as Celery's readers do.

        :param key: the routing key of the events: ``#`` for all, ``worker.#`` for those of workers.
        :param enable: ask the workers for events of tasks, too (Celery: ``enable_events``); they go on sending them.

        Raises ``BrokerUnavailable``, ``BrokerError`` when the broker refuses, and ``ConfigError`` for a broker that
        cannot send a message to all listeners.
        """
        fanout = self._connections.current().broker.fanout
        if fanout is None:
            raise ConfigError("this broker cannot send a message to all listeners, so it has no events")
        binding = Binding(exchange=self._exchange, key=key, message_ttl=KEEP, expires=KEEP_QUEUE)
        async with fanout.listen([binding]) as heard:
            with suppress(BrokerError):  # they beat by themselves, soon
                await self._control.tell("heartbeat")
                if enable:
                    await self._control.tell("enable_events")
            yield EventStream(heard, self._codecs)
