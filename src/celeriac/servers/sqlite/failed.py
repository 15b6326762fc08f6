"""The failed list of a SQLite file.

Rules: whatever is added drops what is too much or too old, in the same transaction.
"""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import Mapping, Sequence

from celeriac.contracts.set_aside import Cap, DeadLetter, Failed
from celeriac.servers.queue_rows import new_message
from celeriac.servers.sqlite.messages import as_json, in_form
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.reading import scalar
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import unpack

_ADD = """
    INSERT OR REPLACE INTO celeriac_failed (task, queue, priority, reason, died_at, frame)
    VALUES (:task, :queue, :priority, :reason, :now, :frame)"""
_COLUMNS = in_form("CAST(task AS TEXT), {queue}, CAST(reason AS TEXT), {died}, {frame}")
_LIST = (
    f"SELECT {_COLUMNS} FROM celeriac_failed WHERE died_at >= :since ORDER BY id LIMIT :limit OFFSET :offset"
)
_FIND = f"SELECT {_COLUMNS} FROM celeriac_failed WHERE task IN (SELECT value FROM json_each(:tasks))"
_COUNT = "SELECT count(*) FROM celeriac_failed WHERE died_at >= :since"
_DELETE = "DELETE FROM celeriac_failed WHERE task IN (SELECT value FROM json_each(:tasks))"


class SqliteFailed:
    """The failed list of one broker; see ``celeriac.contracts.set_aside.FailedTasks``."""

    def __init__(self, file: QueueFile, cap: Cap) -> None:
        self._file = file
        self._cap = cap

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        values = {"since": self._since(), "limit": max(0, limit), "offset": offset}
        return await self._read(_LIST, values)

    async def count(self) -> int:
        since = self._since()
        return await self._file.link.read(
            lambda connection: int(scalar(connection, _COUNT, {"since": since}))
        )

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        return await self._read(_FIND, {"tasks": as_json(ids)})

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        new = new_message(envelope, Route(queue, queue=queue))
        values = {
            "task": failed.id,
            "queue": queue,
            "priority": new.priority,
            "reason": failed.reason,
            "now": self._file.clock.now(),
            "frame": new.frame,
        }

        def whole(connection: sqlite3.Connection) -> None:
            connection.execute(_ADD, values)
            self._file.messages.trim_failed(connection)

        await self._file.link.write(whole)

    async def delete(self, ids: Sequence[str]) -> int:
        tasks = as_json(ids)
        return await self._file.link.write(
            lambda connection: connection.execute(_DELETE, {"tasks": tasks}).rowcount
        )

    async def _read(self, statement: str, values: Mapping[str, object]) -> builtins.list[DeadLetter]:
        rows = await self._file.link.read(lambda connection: connection.execute(statement, values).fetchall())
        return [
            DeadLetter(id=task, envelope=unpack(frame), queue=queue, reason=reason, died_at=died_at)
            for task, queue, reason, died_at, frame in rows
        ]

    def _since(self) -> float:
        return self._file.clock.now() - self._cap.seconds
