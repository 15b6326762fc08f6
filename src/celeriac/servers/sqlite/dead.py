"""Messages that were set aside in a SQLite file."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from celeriac.broker import DeadLetter
from celeriac.servers.sqlite.desk import Desk
from celeriac.servers.sqlite.messages import row_ids
from celeriac.wire.frame import unpack


class SqliteDeadLetters:
    """The dead-letter list of one broker; see ``celeriac.broker.DeadLetters``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        found = await self._desk.link.read(
            lambda connection: self._desk.messages.dead(connection, limit, offset)
        )
        return [
            DeadLetter(
                id=str(dead.id),
                envelope=unpack(dead.frame),
                queue=dead.queue,
                reason=dead.reason,
                died_at=dead.died_at,
            )
            for dead in found
        ]

    async def count(self) -> int:
        return await self._desk.link.read(self._desk.messages.count_dead)

    async def retry(self, ids: Sequence[str]) -> int:
        return await self._desk.retry_dead(row_ids(ids))

    async def delete(self, ids: Sequence[str]) -> int:
        rows = row_ids(ids)
        return await self._desk.link.write(
            lambda connection: self._desk.messages.delete_dead(connection, rows)
        )
