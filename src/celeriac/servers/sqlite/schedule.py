"""Messages that are parked in a SQLite file.

Rules: what is due is queued before anybody looks, so a parked message is one whose time is yet to come.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from sqlalchemy import Connection, text

from celeriac.broker import Parked
from celeriac.servers.sqlite.desk import Desk
from celeriac.servers.sqlite.messages import as_json, row_ids
from celeriac.wire.frame import unpack

_LIST = text("""
    SELECT id, CAST(queue AS TEXT), due_at, CAST(coalesce(frame, '') AS BLOB) FROM celeriac_message
    WHERE due_at IS NOT NULL ORDER BY due_at, id LIMIT :limit OFFSET :offset""")
_COUNT = text("SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL")
_DELETE = text("""
    DELETE FROM celeriac_message WHERE due_at IS NOT NULL AND id IN (SELECT value FROM json_each(:ids))""")


class SqliteSchedule:
    """What is parked with one broker; see ``celeriac.broker.Schedule``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[Parked]:
        def read(connection: Connection) -> builtins.list[Parked]:
            rows = connection.execute(_LIST, {"limit": limit, "offset": offset})
            return [
                Parked(id=str(id), envelope=unpack(frame), queue=queue, due=due)
                for id, queue, due, frame in rows
            ]

        return await self._desk.revived(read)

    async def count(self) -> int:
        return await self._desk.revived(lambda connection: int(connection.execute(_COUNT).scalar_one()))

    async def delete(self, ids: Sequence[str]) -> int:
        facts = {"ids": as_json(row_ids(ids))}
        return await self._desk.revived(lambda connection: connection.execute(_DELETE, facts).rowcount)
