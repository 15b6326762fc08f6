"""Publishes the messages of periodic tasks: one transaction compares an entry's last slot, and queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celeriac.servers.postgres.board import PostgresSlots
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.wire.envelope import Envelope, Route


class PostgresBeat:
    """See ``celeriac.contracts.broker.Beat``."""

    def __init__(self, queues: Queues, slots: PostgresSlots) -> None:
        self._queues = queues
        self._slots = slots

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        return await self._queues.calls.tick((entry, slot, new_messages(messages)))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return await self._slots.last(entries)
