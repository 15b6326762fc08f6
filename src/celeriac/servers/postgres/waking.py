"""The queues that one process knows, and the subscriptions in it that wait for them.

Rules: a change that makes a message ready wakes the subscriptions of its queue, in this process by an event and in the
others by a notification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from uuid import uuid4

from celeriac.errors import BrokerError
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.sleeping import FALL_ASLEEP, channel_of, channels_of

_FALL_ASLEEP = FALL_ASLEEP.format(queues=1, process=2, channels=3)


class Waking:
    """See above.

    :param join: notes that the connections are in use.
    :ivar process: the name of this process among those that sleep.
    :ivar rings: how often there may have been something new to take.
    """

    def __init__(self, link: PostgresLink, join: Callable[[], None]) -> None:
        self._link = link
        self._join = join
        self.process = uuid4().hex
        self.rings = 0
        self._known: set[str] = set()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._wakes: dict[str, _Wake] = {}

    async def attend(self, event: asyncio.Event, queue: str) -> None:
        """Declare the queue; set the event whenever it may have got a message, from any process."""
        sql.check_queue(queue, BrokerError)
        self._join()
        await self._link.fetch(sql.DECLARE, [queue])
        self._known.add(queue)
        waiting = self._waiting.setdefault(queue, set())
        if not waiting:
            wake = self._wakes[queue] = _Wake(self, queue)
            await self._link.hear(await self.channel(queue), wake)
        waiting.add(event)

    async def ignore(self, event: asyncio.Event, queues: Collection[str]) -> None:
        """Set the event for these queues no longer."""
        for queue in queues:
            waiting = self._waiting.get(queue, set())
            waiting.discard(event)
            if not waiting and queue in self._wakes:
                self._waiting.pop(queue, None)
                await self._link.ignore(await self.channel(queue), self._wakes.pop(queue))

    def ring(self, queues: Collection[str]) -> None:
        """Set the events of this process that wait for one of the queues."""
        self.rings += 1
        for queue in queues:
            for event in self._waiting.get(queue, ()):
                event.set()

    @property
    def polls(self) -> bool:
        """Whether no notification arrives here, so that a sleeper must look often."""
        return not self._link.connections.has_sessions

    async def fall_asleep(self, queues: Sequence[str]) -> None:
        """Let each sender to these queues notify this process for the next seconds, if it can listen."""
        if self.polls:
            return
        schema = (await self._link.facts()).schema
        names = sorted(queues)
        await self._link.fetch(_FALL_ASLEEP, names, self.process, channels_of(schema, names))

    async def channel(self, queue: str) -> str:
        """Return the channel of the notifications about a queue."""
        return channel_of((await self._link.facts()).schema, queue)

    # --- which queues there are

    async def declare(self, queues: Collection[str]) -> None:
        """Make the queues known that this process has not declared yet."""
        self._join()
        unknown = self.unknown(queues)
        if unknown:
            await self._link.fetch(sql.DECLARE, sorted(unknown))
            self._known.update(unknown)

    def unknown(self, queues: Collection[str]) -> set[str]:
        """Return the queues that this process has not declared yet."""
        return set(queues) - self._known

    def published(self, queues: Collection[str]) -> None:
        """Note that these queues exist now, and wake their subscriptions."""
        self._known.update(queues)
        self.ring(queues)

    def forget(self) -> None:
        """Know of no queue that it exists."""
        self._known.clear()


class _Wake:
    """Wakes the subscriptions of one queue."""

    def __init__(self, waking: Waking, queue: str) -> None:
        self._waking = waking
        self._queue = queue

    def __call__(self, _payload: str) -> None:
        self._waking.ring([self._queue])
