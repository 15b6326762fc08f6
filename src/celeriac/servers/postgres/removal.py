"""The messages that wait in a PostgreSQL database, for removals."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.queue_rows import TakenMessage
from celeriac.servers.row_removal import Place


class PostgresRows:
    """The messages of one database; see ``celeriac.servers.row_removal.WaitingRows``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def look(self, queue: str, after: Place, limit: int) -> Sequence[tuple[Place, TakenMessage]]:
        await self._queues.revive()
        rows = await self._queues.link.fetch(sql.SEE_ON, queue, *after, limit)
        return [((row["priority"], row["id"]), sql.taken_message(row, 0)) for row in rows]

    async def delete(self, ids: Sequence[int]) -> set[int]:
        return {row["id"] for row in await self._queues.link.fetch(sql.REMOVE, ids)}
