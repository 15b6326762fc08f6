"""The waits for results that a process has noted in the database, so that whoever stores one tells it.

Rules: a wait is noted by the statement that reads what there is already, and those that begin at the same time share
it. A note is deleted a while after its wait has ended, together with others: that costs a client that waits for one
result after the other less than deleting each, and what is told meanwhile is told in vain. One that is being deleted
is not taken for the note of a wait that begins meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from celeriac.errors import BackendError
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.following import Following
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.result_rows import LOAD, read_row
from celeriac.servers.result_rows import Row

_BATCH = 500
"""Waits that share one statement."""

_LATER = 0.05
"""Seconds after the end of a wait in which its note is deleted."""

_BEGIN = f"""
    WITH noted AS (
        INSERT INTO celeriac_waiting (task_id, channel) SELECT unnest($1::text[]), $2
        ON CONFLICT (task_id, channel) DO UPDATE SET since = now())
    {LOAD}"""
_END = "DELETE FROM celeriac_waiting WHERE channel = $2 AND task_id = ANY($1::text[])"


class Waits:
    """The notes of one process.

    :param channel: where it is told.
    :param following: which tasks are waited for.
    """

    def __init__(self, link: PostgresLink, channel: str, following: Following) -> None:
        self._link = link
        self._channel = channel
        self._following = following
        self._noting: Coalescer[Sequence[str], dict[str, Row]] = Coalescer(self._note, _BATCH)
        self._deleting: Coalescer[Sequence[str], None] = Coalescer(self._delete, _BATCH)
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._ended: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self, task_ids: Sequence[str]) -> Mapping[str, Row]:
        """Note that these are waited for; return the results that there are, perhaps with those of others."""
        if leaving := {self._leaving[task_id] for task_id in task_ids if task_id in self._leaving}:
            await asyncio.wait(leaving)
        return await self._noting.lead(task_ids) if task_ids else {}

    def end(self, task_ids: Sequence[str]) -> None:
        """Have nothing told of these any more, soon, unless others wait for them."""
        self._ended.update(task_ids)
        if self._timer is None and task_ids:
            self._timer = asyncio.get_running_loop().call_later(_LATER, self._delete_ended)

    async def close(self) -> None:
        """Return when all notes of ended waits are deleted."""
        await self._noting.drain()
        self._delete_ended()
        await self._deleting.drain()

    def _delete_ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = [task_id for task_id in self._ended if task_id not in self._following]
        self._ended.clear()
        if left:
            done = self._deleting(left)
            self._leaving.update(dict.fromkeys(left, done))
            done.add_done_callback(lambda _: self._deleted(left))

    def _deleted(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            done = self._leaving.get(task_id)
            if done is not None and done.done():
                del self._leaving[task_id]

    # --- in batches

    async def _note(self, waits: Sequence[Sequence[str]]) -> list[dict[str, Row]]:
        task_ids = sorted({task_id for ids in waits for task_id in ids})
        found = await self._link.fetch(_BEGIN, task_ids, self._channel, keeps_plan=True)
        rows = {row["task_id"]: read_row(row) for row in found}
        return [rows] * len(waits)

    async def _delete(self, ended: Sequence[Sequence[str]]) -> list[None]:
        left = [task_id for ids in ended for task_id in ids]
        with suppress(BackendError):  # the rows are deleted with the next cleanup
            await self._link.fetch(_END, left, self._channel, keeps_plan=True)
        return [None] * len(ended)
