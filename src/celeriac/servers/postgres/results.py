"""A result store in Celery's own tables: a Celery client reads it as ``db+postgresql://``, and the other way round.

Rules: stores of concurrent callers share statements. A store notifies only the processes that wait for its tasks.
Celery's workers notify none, so what is waited for is also looked up twice a second. Tables keep no history: of states
that follow each other faster than a follower looks, it sees the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec

from celeriac.clock import Clock, SystemClock, set_within
from celeriac.contracts.backend import EncodedResult, Replies
from celeriac.contracts.board import Mark
from celeriac.errors import BackendError, BackendUnavailable, Finding
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.following import Following
from celeriac.servers.postgres import rights
from celeriac.servers.postgres.board import PostgresBoard, take_down
from celeriac.servers.postgres.chords import PostgresChords
from celeriac.servers.postgres.cleanup import Cleanup
from celeriac.servers.postgres.connections import Connection, Connections
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.result_rows import (
    FORGET,
    LOAD,
    STORE,
    check,
    check_id,
    columns_of,
    one_for_each,
    read_row,
    storable_ids,
)
from celeriac.servers.postgres.tables import as_text
from celeriac.servers.postgres.waits import Waits
from celeriac.servers.result_rows import MOST_COUNTED, EncodedRow, Row, RowCodec, results_there
from celeriac.servers.row_reading import RowReading
from celeriac.wire.content import Codecs
from celeriac.wire.result import ResultRecord

_BATCH = 500
"""Calls that share one statement."""

_POLL = 0.5
"""Seconds between looks at the table while any task is followed: Celery's workers tell nobody."""

_AGAIN = (0.02, 0.1)
"""Seconds after which a new follower looks again: a store that began before, and is on its way to the disk, tells it
nothing, and is not seen yet.
"""

_LONGEST_POLL = 15.0

_BLIND_POLL = 0.1
"""The same where nothing can be listened to, at first; it grows to ``_POLL``."""

_MOST_TOLD = 10_000
"""The most tasks with news that are kept by id until the next look: any client of the database may notify."""

_COUNT = f"SELECT count(*) FROM (SELECT 1 FROM celery_taskmeta LIMIT {MOST_COUNTED + 1}) AS kept"
_LAST_ID = "SELECT coalesce(pg_sequence_last_value('task_id_sequence'::regclass), 0)"
_ID_TYPE = """
    SELECT format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = 'celery_taskmeta'::regclass AND attname = 'id'"""
_HALF = 2**30

_read_names = msgspec.json.Decoder(list[str]).decode


class PostgresBackend:
    """Keeps results in a PostgreSQL database.

    :param connections: the connections to it, which may be shared.
    :param codecs: the serializers that may be used.
    :param serializer: writes the values; the one that reads them when Celery wrote (``result_serializer``).
    :param expires: seconds after which a finished result may be deleted; ``None`` keeps it.
    :param extended: keep name, arguments, worker, retries and queue too (``result_extended``).
    """

    replies: Replies | None = None
    tables = as_text("results", "board")

    def __init__(
        self,
        connections: Connections,
        codecs: Codecs,
        *,
        serializer: str = "json",
        expires: float | None = 86400.0,
        extended: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    ) -> None:
        self.connections = connections
        self._link = PostgresLink(
            connections, "results", unavailable=BackendUnavailable, refused=BackendError
        )
        self._codec = RowCodec(codecs, serializer, extended)
        self._clock = clock
        self._chords = PostgresChords(self._link, codecs, serializer, expires)
        self._board = PostgresBoard(self._link.needing("board"))
        self._cleanup = Cleanup(self._link, expires, clock)
        self._following = Following()
        self._channel = f"celeriac_result_{uuid4().hex}"
        self._watch: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._look_at_all = False
        self._changed = asyncio.Event()
        self._hears = False
        self._storing: Coalescer[EncodedRow, None] = Coalescer(self._store, _BATCH, lambda row: row.size)
        self._loading: Coalescer[Sequence[str], dict[str, Row]] = Coalescer(self._load, _BATCH)
        self._waits = Waits(self._link, self._channel, self._following)
        self._reading = RowReading(self._codec, codecs, self._loading.lead, self._following)

    @property
    def chords(self) -> PostgresChords:
        """What counts chords in this database."""
        return self._chords

    @property
    def board(self) -> PostgresBoard:
        return self._board

    def encode(self, record: ResultRecord) -> EncodedResult:
        return self._codec.encode(record)

    def check_id(self, task_id: str) -> None:
        """See ``celeriac.contracts.backend.SelectiveBackend``."""
        check_id(task_id)

    async def store(self, encoded: EncodedResult) -> None:
        await self._storing(self.checked(encoded))

    async def store_and_unmark(self, encoded: EncodedResult, mark: Mark) -> None:
        """See ``celeriac.contracts.backend.UnmarkingBackend``."""
        self.connections.join(self)
        row = self.checked(encoded)

        async def store(connection: Connection) -> None:
            await connection.fetch(STORE, *columns_of([row]))
            await take_down(connection, [mark])

        await self._link.needing("board").transact(store)
        self.stored()

    def checked(self, encoded: EncodedResult) -> EncodedRow:
        """Return the row; raise ``BackendError`` for what the table cannot keep."""
        row = encoded if isinstance(encoded, EncodedRow) else self._codec.encode(encoded.record)
        check(row)
        return row

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return await self._reading.load(task_ids)

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            ids = storable_ids(task_ids)
            await self._keep_watch()
            again: list[asyncio.TimerHandle] = []
            try:
                self._reading.give(follower, await self._waits.begin(ids))
                loop = asyncio.get_running_loop()
                again = [loop.call_later(seconds, self._look_at, ids) for seconds in _AGAIN]
                yield follower.records()
            finally:
                for handle in again:
                    handle.cancel()
                self._waits.end(ids)

    async def forget(self, task_ids: Sequence[str]) -> None:
        await self._link.fetch(FORGET, storable_ids(task_ids))

    async def migrate(self) -> Sequence[str]:
        self.connections.join(self)
        return await self._link.needing("board").migrate()

    async def ping(self) -> str:
        stored = await self._link.value(_COUNT)
        facts = await self._link.facts()
        return f"PostgreSQL {facts.version}, {results_there(stored)}"

    async def examine(self) -> Sequence[Finding]:
        await rights.require(self._link, rights.RESULTS)
        await self._link.fetch(FORGET, [])  # which a replica refuses
        last, kind = await self._link.value(_LAST_ID), await self._link.value(_ID_TYPE)
        lowered = self.connections.lowered()
        if last < _HALF or kind != "integer":
            return lowered
        return [
            *lowered,
            Finding(
                f"celery_taskmeta has used {last} ids of 2147483647: after the last one no result can be stored",
                "ALTER TABLE celery_taskmeta ALTER COLUMN id TYPE bigint; Celery reads it as before",
            ),
        ]

    async def close(self) -> None:
        await self._storing.drain()
        await self._loading.drain()
        await self._waits.close()
        await self._chords.drain()
        await self._board.drain()
        await self._cleanup.close()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        if self._hears:
            self._hears = False
            await self._link.ignore(self._channel, self._hear)
        await self.connections.leave(self)

    # --- in batches ----------------------------------------------------------------------------------------

    async def _store(self, rows: Sequence[EncodedRow]) -> list[None]:
        self.connections.join(self)
        await self._link.fetch(STORE, *columns_of(one_for_each(rows)), keeps_plan=True)
        self.stored()
        return [None] * len(rows)

    def stored(self) -> None:
        """Note that results were stored: expired ones are deleted now and then."""
        self._cleanup.start_if_due()

    async def _load(self, requests: Sequence[Sequence[str]]) -> list[dict[str, Row]]:
        self.connections.join(self)
        wanted = storable_ids([task_id for request in requests for task_id in request])
        found = await self._link.fetch(LOAD, wanted, keeps_plan=True) if wanted else []
        rows = {row["task_id"]: read_row(row) for row in found}
        return [rows] * len(requests)

    # --- following -----------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        self.connections.join(self)
        await self._link.facts()
        if not self._hears and self.connections.has_sessions:
            self._hears = True
            try:
                await self._link.hear(self._channel, self._hear)
            except BaseException:
                self._hears = False
                raise
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_table(), name="celeriac-postgres-results")

    def _hear(self, payload: str) -> None:
        """Note which tasks have news; all of them where that is unknown."""
        try:
            names = _read_names(payload)
        except msgspec.DecodeError:
            self._look_at_all = True
            names = []
        self._look_at(names)

    def _look_at(self, names: Sequence[str]) -> None:
        """Look at these tasks soon."""
        self._told.update(names)
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
            self._look_at_all = True
        self._changed.set()

    async def _watch_table(self) -> None:
        """Pass on the records that are stored, for as long as any task is followed."""
        pause = _POLL if self._hears else _BLIND_POLL
        while self._following:
            await set_within(self._changed, pause)
            started = self._clock.monotonic()
            try:
                await self._look()
            except BackendUnavailable:
                self._look_at_all = True  # the tasks that were notified may be those that could not be read
                await asyncio.sleep(_BLIND_POLL)
                pause = _POLL
                continue
            except BackendError as error:
                self._following.fail(error)
            took = self._clock.monotonic() - started
            # Reading thousands of pending ids again and again must leave room for their stores.
            pause = min(max(_POLL, 10 * took), _LONGEST_POLL) if self._hears else min(_POLL, 1.5 * pause)

    async def _look(self) -> None:
        """Read the tasks that were notified, or else all that are pending."""
        told, self._told = self._told, set()
        look_at_all = self._look_at_all or not self._changed.is_set()
        self._look_at_all = False
        self._changed.clear()
        wanted = (
            self._following.pending if look_at_all else [name for name in told if name in self._following]
        )
        await self._reading.look(wanted)
