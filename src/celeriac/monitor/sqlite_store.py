"""Keeps the history in one SQLite file.

Rules: one thread writes, another reads, and the event loop waits for neither. What was taken in is lost only if the
process dies within the second.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from celeriac.errors import CeleriacError
from celeriac.monitor.rows import TaskRow
from celeriac.monitor.schema import prepare
from celeriac.monitor.store import COLUMNS, Batch, KeptAttempt, Statement, Values

T = TypeVar("T")

_SELECT = ", ".join(COLUMNS)


class SqliteStore:
    """See ``celeriac.monitor.store.Store``.

    :param path: of the file; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="history-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="history-reader")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        try:
            self._writer = await self._in(self._writing, self._connect)
            self._reader = await self._in(self._reading, self._connect)
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise CeleriacError(f"the history {self._path} cannot be used: {error}") from error

    async def close(self) -> None:
        for pool, connection in ((self._reading, self._reader), (self._writing, self._writer)):
            if connection is not None:
                await self._in(pool, connection.close)
            pool.shutdown(wait=False)

    async def known(self, ids: Sequence[str]) -> list[TaskRow]:
        return await self._write(lambda connection: _known(connection, ids))

    async def write(self, batch: Batch) -> None:
        await self._write(lambda connection: _write_batch(connection, batch))

    async def fetch(self, query: str, values: Values) -> Sequence[Sequence[Any]]:
        reader = self._reader
        assert reader is not None, "the history is not open"
        return await self._in(self._reading, lambda: reader.execute(query, values).fetchall())

    async def run(self, statements: Sequence[Statement]) -> list[int]:
        return await self._write(
            lambda connection: [connection.execute(query, values).rowcount for query, values in statements]
        )

    def text_clause(self, text: str) -> tuple[str, str]:
        if len(text) < 3:  # the index holds three characters each
            return "(task.name || ' ' || task.id LIKE ? ESCAPE '\\')", f"%{_plain(text)}%"
        quoted = text.replace('"', '""')
        return "task.seq IN (SELECT rowid FROM task_text WHERE task_text MATCH ?)", f'"{quoted}"'

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30.0)
        prepare(connection)
        return connection

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        writer = self._writer
        assert writer is not None, "the history is not open"

        def in_one() -> T:
            writer.execute("BEGIN IMMEDIATE")
            try:
                done = work(writer)
            except BaseException:
                writer.execute("ROLLBACK")
                raise
            writer.execute("COMMIT")
            return done

        return await self._in(self._writing, in_one)

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _known(connection: sqlite3.Connection, ids: Sequence[str]) -> list[TaskRow]:
    rows = list[TaskRow]()
    for some in in_steps(ids, 500):
        marks = ", ".join("?" * len(some))
        found = connection.execute(f"SELECT {_SELECT} FROM task WHERE id IN ({marks})", some)
        rows += [TaskRow(*values) for values in found]
    return rows


def _write_batch(connection: sqlite3.Connection, batch: Batch) -> None:
    _write_attempts(connection, batch.attempts)
    _count_minutes(connection, batch.ended)
    _write_rows(connection, batch.rows)


def _write_attempts(connection: sqlite3.Connection, attempts: Sequence[KeptAttempt]) -> None:
    for kept in attempts:
        attempt = kept.attempt
        if kept.hash:
            connection.execute(
                "INSERT OR IGNORE INTO traceback VALUES (?, ?)", (kept.hash, attempt.traceback)
            )
        added = connection.execute(
            "INSERT OR IGNORE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*attempt[:6], kept.hash, attempt.group),
        ).rowcount
        if added:
            connection.execute(
                "INSERT INTO grouped VALUES (?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (id) DO UPDATE SET"
                " last = max(last, excluded.last), count = count + 1, example = excluded.example",
                (attempt.group, kept.name, kept.error, kept.place, attempt.at, attempt.at, attempt.task),
            )
            connection.execute(
                "INSERT INTO grouped_hour VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                (int(attempt.at // 3600), attempt.group),
            )


def _write_rows(connection: sqlite3.Connection, rows: Sequence[TaskRow]) -> None:
    columns = ", ".join(COLUMNS)
    marks = ", ".join("?" * len(COLUMNS))
    updates = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column != "id")
    connection.executemany(
        f"INSERT INTO task ({columns}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}",
        [msgspec.structs.astuple(row) for row in rows],
    )


def _count_minutes(connection: sqlite3.Connection, ended: Sequence[TaskRow]) -> None:
    connection.executemany(
        "INSERT INTO minute VALUES (?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + 1,"
        " runtime = runtime + excluded.runtime, longest = max(longest, excluded.longest), wait = wait + excluded.wait",
        [
            (
                int((row.ended or row.changed) // 60),
                row.name,
                row.queue,
                row.state,
                row.runtime or 0.0,
                row.runtime or 0.0,
                row.wait or 0.0,
            )
            for row in ended
        ],
    )


def in_steps(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Yield the items in parts of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
