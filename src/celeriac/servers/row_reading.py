"""Reads results that are rows, for loading and for following, of any database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from celeriac.servers.following import Follower, Following
from celeriac.servers.offload import in_thread
from celeriac.servers.result_rows import Row, RowCodec
from celeriac.wire.content import Codecs
from celeriac.wire.result import ResultRecord, take_long


class RowReading:
    """The rows of one result store.

    :param read: reads the rows of some tasks, by their ids; calls at the same time share round trips.
    :param following: the followers, which get what was read.
    """

    def __init__(
        self,
        codec: RowCodec,
        codecs: Codecs,
        read: Callable[[Sequence[str]], Awaitable[Mapping[str, Row]]],
        following: Following,
    ) -> None:
        self._codec = codec
        self._codecs = codecs
        self._read = read
        self._following = following

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        """See ``celeriac.contracts.backend.Backend.load``."""
        rows = await self._read(task_ids)
        found = [rows.get(task_id) for task_id in task_ids]
        if take_long([blob for row in found if row is not None for blob in row.blobs], self._codecs):
            return await in_thread(lambda: self._decoded(found))
        return self._decoded(found)

    async def begin(self, follower: Follower) -> None:
        """Give a new follower what there is."""
        self.give(follower, await self._read(list(follower.pending)))

    def give(self, follower: Follower, rows: Mapping[str, Row]) -> None:
        """Give a new follower what was read, which may be rows of others, too."""
        for row in rows.values():
            if row.task_id in follower.pending:
                self._give(follower, row)

    async def look(self, task_ids: Sequence[str]) -> None:
        """Give all followers of these tasks what there is."""
        for row in (await self._read(task_ids)).values():
            self._give(self._following, row)

    def _give(self, to: Follower | Following, row: Row) -> None:
        slow = take_long(row.blobs, self._codecs)
        to.offer(row.task_id, row.version, partial(self._codec.decode, row), slow=slow)

    def _decoded(self, rows: Sequence[Row | None]) -> list[ResultRecord | None]:
        return [None if row is None else self._codec.decode(row) for row in rows]
