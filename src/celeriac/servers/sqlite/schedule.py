"""Messages that are parked in a SQLite file.

Rules: what is due is queued before anybody looks, so a parked message is one whose time is yet to come.
"""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import Sequence

from celeriac.contracts.broker import Parked
from celeriac.quantities import LONGEST
from celeriac.servers.queue_rows import row_ids
from celeriac.servers.sqlite.messages import as_json
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.frame import unpack

_LIST = """
    SELECT id, CAST(queue AS TEXT), due_at, CAST(coalesce(frame, '') AS BLOB) FROM celeriac_message
    WHERE due_at IS NOT NULL ORDER BY due_at, id LIMIT :limit OFFSET :offset"""
_COUNT = "SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL"
_LATEST = "SELECT max(due_at) FROM celeriac_message WHERE due_at < :border"
_DELETE = """
    DELETE FROM celeriac_message WHERE due_at IS NOT NULL AND id IN (SELECT value FROM json_each(:ids))"""


class SqliteSchedule:
    """The parked messages of one broker; see ``celeriac.contracts.broker.Schedule``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[Parked]:
        def read(connection: sqlite3.Connection) -> builtins.list[Parked]:
            rows = connection.execute(_LIST, {"limit": limit, "offset": offset})
            return [
                Parked(id=str(id), envelope=unpack(frame), queue=queue, due=due)
                for id, queue, due, frame in rows
            ]

        return await self._file.revived(read)

    async def count(self) -> int:
        return await self._file.revived(lambda connection: int(scalar(connection, _COUNT)))

    async def delete(self, ids: Sequence[str]) -> int:
        facts = {"ids": as_json(row_ids(ids))}
        return await self._file.revived(lambda connection: connection.execute(_DELETE, facts).rowcount)

    async def horizon(self) -> float:
        now = self._file.clock.now()
        border = {"border": now + LONGEST}
        latest = await self._file.link.read(lambda connection: scalar(connection, _LATEST, border))
        return max(0.0, (latest or 0.0) - now)
