"""The messages that wait in a SQLite file, for removals."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.servers.queue_rows import TakenMessage
from celeriac.servers.row_removal import Place
from celeriac.servers.sqlite.messages import as_json, in_form
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.reading import column

_LOOK = in_form("""
    SELECT message.priority, id, redelivered IS 1, {count}, {frame} FROM celeriac_message AS message
    WHERE queue = :queue AND owner IS NULL AND due_at IS NULL AND (message.priority, id) > (:priority, :id)
    ORDER BY message.priority, id LIMIT :limit""")
_DELETE = """
    DELETE FROM celeriac_message WHERE id IN (SELECT value FROM json_each(:ids)) AND owner IS NULL AND due_at IS NULL
    RETURNING id"""


class SqliteRows:
    """The messages of one file; see ``celeriac.servers.row_removal.WaitingRows``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    async def look(self, queue: str, after: Place, limit: int) -> Sequence[tuple[Place, TakenMessage]]:
        facts = {"queue": queue, "priority": after[0], "id": after[1], "limit": limit}
        rows = await self._file.revived(lambda connection: connection.execute(_LOOK, facts).fetchall())
        return [
            ((priority, id), TakenMessage(id, 0, queue, bool(redelivered), deliveries, frame))
            for priority, id, redelivered, deliveries, frame in rows
        ]

    async def delete(self, ids: Sequence[int]) -> set[int]:
        facts = {"ids": as_json(ids)}
        return set(await self._file.link.write(lambda connection: column(connection, _DELETE, facts)))
