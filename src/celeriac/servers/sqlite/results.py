"""A result store in Celery's own tables: a Celery client reads it as ``db+sqlite:///``, and the other way round.

Rules: stores of concurrent callers share transactions; the file is read and written in a thread of its own. Tables
keep no history: of states that follow each other faster than the store looks, a follower in another process sees the
last.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from celeriac.clock import Clock, SystemClock, set_within
from celeriac.contracts.backend import EncodedResult, Replies, check_text
from celeriac.contracts.board import Mark
from celeriac.errors import BackendError, BackendUnavailable, Finding
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.following import Following
from celeriac.servers.result_rows import EncodedRow, Row, RowCodec, results_there
from celeriac.servers.row_reading import RowReading
from celeriac.servers.sqlite.board import SqliteBoard, take_down
from celeriac.servers.sqlite.chords import SqlChords
from celeriac.servers.sqlite.limits import USUAL, FileLimits
from celeriac.servers.sqlite.link import LARGE, SqliteLink
from celeriac.servers.sqlite.result_rows import ResultRows
from celeriac.servers.sqlite.tables import RESULTS
from celeriac.servers.url_parts import file_of
from celeriac.wire.content import Codecs
from celeriac.wire.names import is_text
from celeriac.wire.result import ResultRecord

_BATCH = 1000
"""Calls that share one transaction."""

_POLL = 0.05
"""Seconds between looks at the file while any task is followed: Celery workers write results without a poke."""

RESULT_TOPIC = "result"
"""What followers listen for."""


class SqlBackend:
    """Keeps results in a SQL database.

    :param url: ``sqlite:///file.db`` (relative) or ``sqlite:////directory/file.db``.
    :param codecs: the serializers that may be used.
    :param serializer: writes the values; the one that reads them when Celery wrote (``result_serializer``).
    :param expires: seconds after which a finished result may be deleted; ``None`` keeps it.
    :param extended: keep name, arguments, worker, retries and queue too (``result_extended``).
    :param group: let the file's group read and write what is made here too; else only its owner may.
    :param limits: how long this process waits for the file.
    :raises ConfigError: the URL names no SQLite file.
    """

    replies: Replies | None = None

    def __init__(
        self,
        url: str,
        codecs: Codecs,
        *,
        serializer: str = "json",
        expires: float | None = 86400.0,
        extended: bool = False,
        group: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        limits: FileLimits = USUAL,
    ) -> None:
        self._link = SqliteLink(
            file_of(url),
            RESULTS,
            clock,
            away=BackendUnavailable,
            refused=BackendError,
            group=group,
            busy=limits.busy,
        )
        self._codec = RowCodec(codecs, serializer, extended)
        self._clock = clock
        self._rows = ResultRows(clock, expires)
        self._chords = SqlChords(self._link, codecs, serializer, clock, expires)
        self._board = SqliteBoard(self._link, clock)
        self._following = Following()
        self._watch: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._version = 0
        self._listens = False
        self._hears = False
        self._storing: Coalescer[EncodedRow, None] = Coalescer(self._store, _BATCH, lambda row: row.size)
        self._loading: Coalescer[Sequence[str], dict[str, Row]] = Coalescer(self._load, _BATCH)
        self._reading = RowReading(self._codec, codecs, self._loading, self._following)

    @property
    def chords(self) -> SqlChords:
        """What counts chords in this file."""
        return self._chords

    @property
    def rows(self) -> ResultRows:
        """What writes results within a transaction."""
        return self._rows

    @property
    def path(self) -> Path:
        """The database file."""
        return self._link.path

    @property
    def board(self) -> SqliteBoard:
        return self._board

    def encode(self, record: ResultRecord) -> EncodedResult:
        return self._codec.encode(record)

    check_id = staticmethod(check_text)

    async def store(self, encoded: EncodedResult) -> None:
        await self._storing(await self.checked(encoded))

    async def store_and_unmark(self, encoded: EncodedResult, mark: Mark) -> None:
        """See ``celeriac.contracts.backend.UnmarkingBackend``."""
        row = await self.checked(encoded)

        def store(connection: sqlite3.Connection) -> None:
            self._rows.write(connection, [row])
            take_down(connection, [mark], self._clock.now())

        await self._link.write(store, lambda: [RESULT_TOPIC])
        self.stored([row])

    async def checked(self, encoded: EncodedResult) -> EncodedRow:
        """Return the row; raise ``BackendError`` or ``EncodeError`` for what the file cannot keep."""
        row = encoded if isinstance(encoded, EncodedRow) else self._codec.encode(encoded.record)
        record = row.record
        if not is_text(record.task_id):
            raise BackendError(f"task id {record.task_id!r} is no text that can be stored")
        if row.size >= LARGE:
            await self._link.check_size(row.size, f"the result of {record.name or 'task'}[{record.task_id}]")
        return row

    def stored(self, rows: Sequence[EncodedRow]) -> None:
        """Wake the followers, in this process, of the tasks that were written."""
        if self._following and any(row.record.task_id in self._following for row in rows):
            self._changed.set()

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return await self._reading.load(task_ids)

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            await self._keep_watch()
            await self._reading.begin(follower)
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        await self._link.write(partial(self._rows.forget, task_ids=task_ids))

    async def ping(self) -> str:
        stored = await self._link.read(self._rows.count)
        return f"SQLite file {self._link.path}, {results_there(stored)}"

    async def examine(self) -> Sequence[Finding]:
        await self._link.write(lambda _: None)  # a file that may only be read keeps nothing
        return ()

    async def close(self) -> None:
        await self._storing.drain()
        await self._loading.drain()
        await self._chords.drain()
        await self._board.drain()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._link.close()
        self._listens = self._hears = False

    # --- in batches ----------------------------------------------------------------------------------------

    async def _store(self, rows: Sequence[EncodedRow]) -> list[None]:
        await self._link.write(partial(self._rows.write, rows=rows), lambda: [RESULT_TOPIC])
        self.stored(rows)
        return [None] * len(rows)

    async def _load(self, requests: Sequence[Sequence[str]]) -> list[dict[str, Row]]:
        wanted = sorted({task_id for request in requests for task_id in request})
        rows = await self._link.read(partial(self._rows.read, task_ids=wanted))
        return [rows] * len(requests)

    # --- following -----------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        if not self._listens:
            self._listens = True
            await self._link.listen(self._changed.set)
        if not self._hears:
            self._hears = True
            await self._link.hear([RESULT_TOPIC])
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_file())

    async def _watch_file(self) -> None:
        """Pass on the records that others stored, for as long as any task is followed."""
        while self._following:
            try:
                await self._look()
            except BackendUnavailable:
                await asyncio.sleep(_POLL)
            except BackendError as error:
                self._following.fail(error)
                await asyncio.sleep(_POLL)
            if not self._following:
                await self._stop_hearing()

    async def _stop_hearing(self) -> None:
        self._hears = False
        with suppress(BackendError):  # a poke that is not wanted does no harm
            await self._link.ignore([RESULT_TOPIC])

    async def _look(self) -> None:
        """Wait for a poke or, at the latest, the next poll; read what is pending if the file was written."""
        await set_within(self._changed, _POLL)
        poked = self._changed.is_set()
        self._changed.clear()
        version = await self._link.version()
        if not poked and version == self._version:
            return
        started = self._clock.monotonic()
        self._version = version
        await self._reading.look(self._following.pending)
        # Reading thousands of pending ids again and again must leave room for their stores.
        await asyncio.sleep(self._clock.monotonic() - started)
