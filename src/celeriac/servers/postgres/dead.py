"""Messages that were set aside in a PostgreSQL database."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from celeriac.contracts.set_aside import DeadLetter
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.queue_rows import row_ids
from celeriac.wire.frame import unpack


class PostgresDeadLetters:
    """The dead-letter list of one broker; see ``celeriac.contracts.set_aside.DeadLetters``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        return [
            DeadLetter(id=str(id), envelope=unpack(frame), queue=queue, reason=reason, died_at=died_at)
            for id, queue, reason, died_at, frame in await self._queues.link.fetch(
                sql.LIST_DEAD, limit, offset
            )
        ]

    async def count(self) -> int:
        return int(await self._queues.link.value(sql.COUNT_DEAD))

    async def retry(self, ids: Sequence[str]) -> int:
        return await self._queues.retry_dead(row_ids(ids))

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._queues.link.count(sql.DELETE_DEAD, row_ids(ids))
