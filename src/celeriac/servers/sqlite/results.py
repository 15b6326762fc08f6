"""A result store in Celery's own tables: a Celery client reads it as ``db+sqlite:///``, and the other way round.

Rules: stores of concurrent callers share transactions; the file is read and written in a thread of its own; a table
that an older Celery made gets the columns it lacks. Tables keep no history: of states that follow each other faster
than the store looks, a follower in another process sees the last. Sources: Celery, Database Result Backends; what
Celery 5.7 and older versions write there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from celeriac.backend import ChordStore, Copies, EncodedResult, Replies
from celeriac.clock import Clock, SystemClock
from celeriac.errors import BackendError, BackendUnavailable
from celeriac.finding import Finding
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.following import Following
from celeriac.servers.offload import in_thread
from celeriac.servers.sqlite.chords import SqlChords, chord_tables
from celeriac.servers.sqlite.copies import SqlCopies, copy_table
from celeriac.servers.sqlite.link import LARGE, SqliteLink, listener_table
from celeriac.servers.url_parts import file_of
from celeriac.wire.content import PICKLE, Codecs
from celeriac.wire.names import is_text
from celeriac.wire.plain_pickle import read_plain_pickle
from celeriac.wire.preview import counted
from celeriac.wire.result import (
    READY_STATES,
    ResultRecord,
    decode_value,
    encode_lossy,
    encode_value,
    is_pickle,
    take_long,
    writable_text,
)

_BATCH = 1000
"""Calls that share one transaction."""

_IDS = 5000
"""Ids that one statement looks up."""

_POLL = 0.05
"""Seconds between looks at the file for what a Celery worker wrote, which pokes nobody; only while somebody waits."""

_TOPIC = "result"
"""What followers listen for."""

_CLEANUPS = 24.0
"""How often, within the life of a result, expired rows are deleted."""

_METADATA = MetaData()
listener_table(_METADATA)
chord_tables(_METADATA)
copy_table(_METADATA)

_taskmeta = Table(
    "celery_taskmeta",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("task_id", String(155), unique=True),
    Column("status", String(50)),
    Column("result", LargeBinary),
    Column("date_done", DateTime),
    Column("traceback", Text),
    Column("children", LargeBinary),
    Column("name", String(155)),
    Column("args", LargeBinary),
    Column("kwargs", LargeBinary),
    Column("worker", String(155)),
    Column("retries", Integer),
    Column("queue", String(155)),
    Column("stamps", LargeBinary),
    sqlite_autoincrement=True,
)
Index("ix_celery_taskmeta_date_done", _taskmeta.c.date_done)

_tasksetmeta = Table(
    "celery_tasksetmeta",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("taskset_id", String(155), unique=True),
    Column("result", LargeBinary),
    Column("date_done", DateTime),
    sqlite_autoincrement=True,
)
Index("ix_celery_tasksetmeta_date_done", _tasksetmeta.c.date_done)

# Each fact is a list: the plain columns, then the start and the length of each binary column within ``blobs``.
_STORE = text("""
    INSERT INTO celery_taskmeta (task_id, status, date_done, traceback, name, worker, retries, queue,
                                 result, children, args, kwargs, stamps)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
           json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
           json_extract(value, '$[6]'), json_extract(value, '$[7]'),
           substr(:blobs, json_extract(value, '$[8]'), json_extract(value, '$[9]')),
           substr(:blobs, json_extract(value, '$[10]'), json_extract(value, '$[11]')),
           substr(:blobs, json_extract(value, '$[12]'), json_extract(value, '$[13]')),
           substr(:blobs, json_extract(value, '$[14]'), json_extract(value, '$[15]')),
           substr(:blobs, json_extract(value, '$[16]'), json_extract(value, '$[17]'))
    FROM json_each(:facts) WHERE true
    ON CONFLICT (task_id) DO UPDATE SET
        status = excluded.status, date_done = excluded.date_done, traceback = excluded.traceback,
        name = excluded.name, worker = excluded.worker, retries = excluded.retries, queue = excluded.queue,
        result = excluded.result, children = excluded.children, args = excluded.args, kwargs = excluded.kwargs,
        stamps = excluded.stamps
    WHERE status <> 'SUCCESS' OR excluded.status = 'SUCCESS'""")
_LOAD = text("""
    SELECT task_id, status, date_done, traceback, name, worker, retries, queue,
           result, children, args, kwargs, stamps
    FROM celery_taskmeta WHERE task_id IN (SELECT value FROM json_each(:ids))""")
_FORGET = text("DELETE FROM celery_taskmeta WHERE task_id IN (SELECT value FROM json_each(:ids))")
_DELETE_OLD_RESULTS = text("DELETE FROM celery_taskmeta WHERE date_done < :limit")
_DELETE_OLD_GROUPS = text("DELETE FROM celery_tasksetmeta WHERE date_done < :limit")
_COUNT = text("SELECT count(*) FROM celery_taskmeta")


class _EncodedRow(EncodedResult, frozen=True):
    """A row of ``celery_taskmeta``: ``payload`` is its ``result``, ``others`` are its further binary columns."""

    others: tuple[bytes | None, bytes | None, bytes | None, bytes | None] = (None, None, None, None)

    @property
    def size(self) -> int:
        """Bytes of all columns that may be large."""
        return len(self.payload) + sum(len(other) for other in self.others if other is not None)


class _Row(msgspec.Struct, frozen=True):
    task_id: str
    status: str
    date_done: str | None
    traceback: str | None
    name: str | None
    worker: str | None
    retries: int | None
    queue: str | None
    result: bytes | None
    children: bytes | None
    args: bytes | None
    kwargs: bytes | None
    stamps: bytes | None

    @property
    def blobs(self) -> list[bytes]:
        """What is serialized."""
        every = self.result, self.children, self.args, self.kwargs, self.stamps
        return [blob for blob in every if blob is not None]

    @property
    def version(self) -> Hashable:
        """What differs when the row was written anew."""
        return self.status, self.date_done, self.result, self.children


class SqlBackend:
    """Keeps results in a SQL database.

    :param url: ``sqlite:///file.db`` (relative) or ``sqlite:////directory/file.db``.
    :param codecs: the serializers that may be used.
    :param serializer: writes the values; the one that reads them when Celery wrote (``result_serializer``).
    :param expires: seconds after which a finished result may be deleted; ``None`` keeps it.
    :param extended: keep name, arguments, worker, retries and queue too (``result_extended``).
    :param group: let the file's group read and write what is made here too; else only its owner may.
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
    ) -> None:
        self._link = SqliteLink(
            file_of(url), _METADATA, clock, away=BackendUnavailable, refused=BackendError, group=group
        )
        self._codecs = codecs
        self._serializer = serializer
        self._expires = expires
        self._extended = extended
        self._clock = clock
        self._chords = SqlChords(self._link, codecs, serializer, clock, expires)
        self._copies = SqlCopies(self._link, clock)
        self._next_cleanup = 0.0
        self._following = Following()
        self._watch: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._version = 0
        self._listens = False
        self._hears = False
        self._storing: Coalescer[_EncodedRow, None] = Coalescer(self._store, _BATCH, lambda row: row.size)
        self._loading: Coalescer[Sequence[str], dict[str, _Row]] = Coalescer(self._load, _BATCH)

    @property
    def chords(self) -> ChordStore:
        return self._chords

    @property
    def copies(self) -> Copies:
        return self._copies

    def encode(self, record: ResultRecord) -> EncodedResult:
        return _EncodedRow(
            record,
            encode_value(record, self._codecs, self._serializer),
            others=(
                self._encoded(record.children),
                self._encoded(record.args) if self._extended else None,
                self._encoded(record.kwargs) if self._extended else None,
                self._encoded(_stamps(record)) if self._extended else None,
            ),
        )

    async def store(self, encoded: EncodedResult) -> None:
        if not isinstance(encoded, _EncodedRow):
            encoded = self.encode(encoded.record)
        assert isinstance(encoded, _EncodedRow)
        record = encoded.record
        if not is_text(record.task_id):
            raise BackendError(f"task id {record.task_id!r} is no text that can be stored")
        if encoded.size >= LARGE:
            await self._link.check_size(
                encoded.size, f"the result of {record.name or 'task'}[{record.task_id}]"
            )
        await self._storing(encoded)

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        rows = await self._loading(task_ids)
        found = [rows.get(task_id) for task_id in task_ids]
        if take_long([blob for row in found if row is not None for blob in row.blobs], self._codecs):
            return await in_thread(lambda: [None if row is None else self._record(row) for row in found])
        return [None if row is None else self._record(row) for row in found]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            await self._keep_watch()
            for row in (await self._loading(list(task_ids))).values():
                if row.task_id in follower.pending:
                    slow = take_long(row.blobs, self._codecs)
                    follower.offer(row.task_id, row.version, partial(self._record, row), slow=slow)
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        ids = _write(list(task_ids))
        await self._link.write(lambda connection: connection.execute(_FORGET, {"ids": ids}).rowcount)

    async def ping(self) -> str:
        stored = await self._link.read(lambda connection: connection.execute(_COUNT).scalar_one())
        return f"SQLite file {self._link.path}, {counted(stored, 'result')}"

    async def examine(self) -> Sequence[Finding]:
        await self._link.write(lambda _: None)  # a file that may only be read keeps nothing
        return ()

    async def close(self) -> None:
        await self._storing.drain()
        await self._loading.drain()
        await self._chords.drain()
        await self._copies.drain()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._link.close()
        self._listens = self._hears = False

    # --- storing -------------------------------------------------------------------------------------------

    def _encoded(self, value: Any) -> bytes | None:
        return None if value is None else encode_lossy(value, self._codecs, self._serializer)

    async def _store(self, rows: Sequence[_EncodedRow]) -> list[None]:
        values = _facts_and_blobs(rows, self._clock)
        await self._link.write(partial(self._write_rows, values=values), lambda: [_TOPIC])
        if any(row.record.task_id in self._following for row in rows):
            self._changed.set()
        return [None] * len(rows)

    def _write_rows(self, connection: Connection, values: dict[str, Any]) -> None:
        connection.execute(_STORE, values)
        now = self._clock.now()
        if self._expires is not None and now >= self._next_cleanup:
            self._next_cleanup = now + self._expires / _CLEANUPS
            limit = _as_date(datetime.fromtimestamp(now - self._expires, UTC))
            connection.execute(_DELETE_OLD_RESULTS, {"limit": limit})
            connection.execute(_DELETE_OLD_GROUPS, {"limit": limit})

    # --- loading -------------------------------------------------------------------------------------------

    async def _load(self, requests: Sequence[Sequence[str]]) -> list[dict[str, _Row]]:
        wanted = sorted({task_id for request in requests for task_id in request})
        rows = await self._link.read(partial(_read_rows, task_ids=wanted))
        return [rows] * len(requests)

    def _record(self, row: _Row) -> ResultRecord:
        stamps = self._decoded(row.stamps)
        return ResultRecord(
            task_id=row.task_id,
            status=row.status,
            result=self._result(row),
            traceback=row.traceback,
            children=self._decoded(row.children),
            date_done=_from_date(row.date_done),
            name=row.name,
            args=self._decoded(row.args),
            kwargs=self._decoded(row.kwargs),
            worker=row.worker,
            retries=row.retries,
            queue=row.queue,
            stamps=stamps.get("stamps") or {} if isinstance(stamps, dict) else {},
        )

    def _result(self, row: _Row) -> Any:
        if self._is_refused_pickle(row.result):
            return read_plain_pickle(row.result or b"")
        return decode_value(row.result, row.status, self._codecs, self._serializer)

    def _decoded(self, raw: bytes | None) -> Any:
        if raw is None:
            return None
        if self._is_refused_pickle(raw):
            return read_plain_pickle(raw)
        return decode_value(raw, "", self._codecs, self._serializer)

    def _is_refused_pickle(self, raw: bytes | None) -> bool:
        return raw is not None and is_pickle(raw) and not self._codecs.accepts(PICKLE)

    # --- following -----------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        if not self._listens:
            self._listens = True
            await self._link.listen(self._changed.set)
        if not self._hears:
            self._hears = True
            await self._link.hear([_TOPIC])
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_file())

    async def _watch_file(self) -> None:
        """Offer what others stored, for as long as somebody follows."""
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
        with suppress(BackendError):  # who pokes it finds nobody interested
            await self._link.ignore([_TOPIC])

    async def _look(self) -> None:
        """Wait for a poke or, at the latest, the next poll; read what is pending if the file was written."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL):
                await self._changed.wait()
        poked = self._changed.is_set()
        self._changed.clear()
        version = await self._link.version()
        if not poked and version == self._version:
            return
        started = self._clock.monotonic()
        self._version = version
        rows = await self._loading(self._following.pending)
        for row in rows.values():
            slow = take_long(row.blobs, self._codecs)
            self._following.offer(row.task_id, row.version, partial(self._record, row), slow=slow)
        # Reading thousands of pending ids again and again must leave room for their stores.
        await asyncio.sleep(self._clock.monotonic() - started)


def _facts_and_blobs(rows: Sequence[_EncodedRow], clock: Clock) -> dict[str, Any]:
    blobs: list[bytes] = []
    start = 1
    facts: list[list[Any]] = []
    for row in rows:
        record = row.record
        done = None
        if record.status in READY_STATES:
            done = _as_date(record.date_done or datetime.fromtimestamp(clock.now(), UTC))
        fact: list[Any] = [record.task_id, record.status, done, _text(record.traceback)]
        fact += [_text(record.name), _text(record.worker), record.retries, _text(record.queue)]
        for blob in (row.payload, *row.others):
            if blob is None:
                fact += [None, None]
            else:
                fact += [start, len(blob)]
                blobs.append(blob)
                start += len(blob)
        facts.append(fact)
    return {"facts": _write(facts), "blobs": b"".join(blobs)}


def _read_rows(connection: Connection, task_ids: Sequence[str]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for start in range(0, len(task_ids), _IDS):
        ids = _write(task_ids[start : start + _IDS])
        rows.update((row[0], _Row(*row)) for row in connection.execute(_LOAD, {"ids": ids}))
    return rows


def _write(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _text(value: str | None) -> str | None:
    return None if value is None else writable_text(value)


def _stamps(record: ResultRecord) -> dict[str, Any] | None:
    return {"stamped_headers": list(record.stamps), "stamps": record.stamps} if record.stamps else None


def _as_date(moment: datetime) -> str:
    """Write a time as Celery's ``DateTime`` column does where its timezone is UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _from_date(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
