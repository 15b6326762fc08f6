"""Publishes the messages of periodic tasks: one transaction compares an entry's last slot, and queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celeriac.servers.sqlite.board import SqliteSlots
from celeriac.servers.sqlite.outgoing import new_messages
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.wire.envelope import Envelope, Route


class SqliteBeat:
    """See ``celeriac.contracts.broker.Beat``."""

    def __init__(self, file: QueueFile, slots: SqliteSlots) -> None:
        self._file = file
        self._slots = slots

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        return await self._file.calls.tick((entry, slot, await new_messages(self._file.link, messages)))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return await self._slots.last(entries)
