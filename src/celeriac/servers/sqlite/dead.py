"""Messages that were set aside in a SQLite file."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from celeriac.contracts.set_aside import DeadLetter
from celeriac.servers.queue_rows import row_ids
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.wire.frame import unpack


class SqliteDeadLetters:
    """The dead-letter list of one broker; see ``celeriac.contracts.set_aside.DeadLetters``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        found = await self._file.link.read(
            lambda connection: self._file.messages.dead(connection, limit, offset)
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
        return await self._file.link.read(self._file.messages.count_dead)

    async def retry(self, ids: Sequence[str]) -> int:
        return await self._file.retry_dead(row_ids(ids))

    async def delete(self, ids: Sequence[str]) -> int:
        rows = row_ids(ids)
        return await self._file.link.write(
            lambda connection: self._file.messages.delete_dead(connection, rows)
        )
