"""Messages that are parked in a PostgreSQL database.

Rules: what is due is queued before anybody looks, so a parked message is one whose time is yet to come.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from celeriac.contracts.broker import Parked
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.queue_rows import row_ids
from celeriac.wire.frame import unpack


class PostgresSchedule:
    """The parked messages of one broker; see ``celeriac.contracts.broker.Schedule``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[Parked]:
        await self._queues.revive()
        return [
            Parked(id=str(id), envelope=unpack(frame), queue=queue, due=due)
            for id, queue, due, frame in await self._queues.link.fetch(sql.LIST_PARKED, limit, offset)
        ]

    async def count(self) -> int:
        await self._queues.revive()
        return int(await self._queues.link.value(sql.COUNT_PARKED))

    async def delete(self, ids: Sequence[str]) -> int:
        await self._queues.revive()
        return await self._queues.link.count(sql.DELETE_PARKED, row_ids(ids))

    async def horizon(self) -> float:
        return max(0.0, float(await self._queues.link.value(sql.HORIZON)))
