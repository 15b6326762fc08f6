"""The failed list of a PostgreSQL database.

Rules: whatever is added drops what is too much or too old, in the same statement; what another adds at the same time is
counted by the next. A task that fails twice has two rows, of which the later counts.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from celeriac.contracts.set_aside import DeadLetter, Failed
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.queue_rows import new_message
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import unpack

_YOUNG = f"died_at >= {NOW} - $1::float8 AND died_at < {NOW} + 86400"
_COLUMNS = "task, queue, reason, died_at, frame"
_LIST = f"SELECT {_COLUMNS} FROM celeriac_failed WHERE {_YOUNG} ORDER BY id LIMIT $2 OFFSET $3"
_FIND = f"SELECT DISTINCT ON (task) {_COLUMNS} FROM celeriac_failed WHERE task = ANY($1::text[]) ORDER BY task, id DESC"
_COUNT = f"SELECT count(*) FROM celeriac_failed WHERE {_YOUNG}"
_DELETE = "DELETE FROM celeriac_failed WHERE task = ANY($1::text[])"
_ADD = f"""
    WITH trimmed AS ({sql.TRIM_FAILED.format(most="$6", seconds="$7", new="1")})
    INSERT INTO celeriac_failed (task, queue, priority, reason, died_at, frame) VALUES ($1, $2, $3, $4, {NOW}, $5)"""


class PostgresFailed:
    """The failed list of one broker; see ``celeriac.contracts.set_aside.FailedTasks``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        rows = await self._queues.link.fetch(_LIST, self._queues.cap.seconds, max(0, limit), offset)
        return [_letter(row) for row in rows]

    async def count(self) -> int:
        return int(await self._queues.link.value(_COUNT, self._queues.cap.seconds))

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        return [_letter(row) for row in await self._queues.link.fetch(_FIND, _storable(ids))]

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        new = new_message(envelope, Route(queue, queue=queue))
        task, reason = sql.without_nul(failed.id), sql.without_nul(failed.reason)
        cap = self._queues.cap
        await self._queues.link.fetch(
            _ADD, task, queue, new.priority, reason, new.frame, cap.most, cap.seconds
        )

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._queues.link.count(_DELETE, _storable(ids))


def _storable(ids: Sequence[str]) -> builtins.list[str]:
    return [sql.without_nul(id) for id in ids]


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(
        id=row["task"],
        envelope=unpack(bytes(row["frame"])),
        queue=row["queue"],
        reason=row["reason"],
        died_at=row["died_at"],
    )
