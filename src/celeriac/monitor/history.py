"""Keeps what became of tasks, in one SQLite file.

Rules: failures, retries and revocations are always kept, successes up to a rate; every ending counts in its minute.
Secrets are hidden before anything is stored. One thread writes, another reads, and the event loop waits for neither.
What was taken in is lost only if the process dies within the second.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from celeriac.monitor.filters import Filter
from celeriac.monitor.folding import attempt_of, error_class, fold, place_of
from celeriac.monitor.masking import Mask
from celeriac.monitor.rows import ENDED, ActionRow, AttemptRow, ErrorGroup, MinuteRow, TaskRow
from celeriac.monitor.schema import prepare

T = TypeVar("T")

COLUMNS = TaskRow.__struct_fields__
MOST_OPEN = 50_000
"""Tasks that are remembered in memory, so that their next event need not look them up."""

_MASKED = ("args", "kwargs", "result", "error")
_SELECT = ", ".join(f"task.{column}" for column in COLUMNS)
_STEP = 1_000


class Page(msgspec.Struct, frozen=True):
    """Some tasks, the newest first.

    :param next: what to give as ``before`` for the following page; ``None`` on the last.
    """

    tasks: tuple[TaskRow, ...]
    next: int | None


class History:
    """What became of tasks.

    :param path: of the file; it is made where it is missing.
    :param mask: hides secrets.
    :param keep: seconds for which an ended task is kept.
    :param most: tasks that are kept at most.
    :param rate: successes a second that are kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        mask: Mask,
        keep: float = 7 * 86400.0,
        most: int = 1_000_000,
        rate: float = 500.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._mask = mask
        self._keep = keep
        self._most = most
        self._now = now
        self._intake = _Intake(mask, rate, now)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="history-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="history-reader")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file. Raises ``sqlite3.Error`` and ``OSError`` where that cannot be."""
        self._writer = await self._in(self._writing, self._connect)
        self._reader = await self._in(self._reading, self._connect)

    async def close(self) -> None:
        """Close the file."""
        for pool, connection in ((self._reading, self._reader), (self._writing, self._writer)):
            if connection is not None:
                await self._in(pool, connection.close)
            pool.shutdown(wait=False)

    @property
    def share(self) -> float:
        """The part of the recent successes that was kept, from 0 to 1."""
        return self._intake.share

    async def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in what events say of tasks."""
        await self._write(lambda connection: self._intake.take(connection, events))

    async def sweep(self) -> int:
        """Delete what is too old or too much, in small steps; return how many tasks."""
        deleted = 0
        while (step := await self._write(self._sweep_step)) > 0:
            deleted += step
        return deleted

    async def note(self, who: str, what: str, outcome: str) -> None:
        """Keep what a person did."""
        row = (self._now(), who, self._mask(what), self._mask(outcome))
        await self._write(
            lambda connection: connection.execute("INSERT INTO action VALUES (?, ?, ?, ?)", row)
        )

    async def delete(self, ids: Sequence[str]) -> int:
        """Forget these tasks; return how many were known."""
        return await self._write(lambda connection: _delete(connection, ids))

    async def tasks(self, wanted: Filter, *, limit: int = 50, before: int | None = None) -> Page:
        """Return up to ``limit`` tasks, the newest first."""
        condition, values = wanted.clause()
        if before is not None:
            condition, values = f"{condition} AND task.seq < ?", [*values, before]
        query = f"SELECT seq, {_SELECT} FROM task WHERE {condition} ORDER BY seq DESC LIMIT ?"
        rows = await self._fetch(query, [*values, limit + 1])
        more = len(rows) > limit
        return Page(tuple(TaskRow(*row[1:]) for row in rows[:limit]), rows[limit - 1][0] if more else None)

    async def ids(self, wanted: Filter, limit: int) -> list[str]:
        """Return the ids of up to ``limit`` tasks that are meant."""
        condition, values = wanted.clause()
        query = f"SELECT id FROM task WHERE {condition} ORDER BY seq DESC LIMIT ?"
        return [row[0] for row in await self._fetch(query, [*values, limit])]

    async def count(self, wanted: Filter, most: int = 10_000) -> int:
        """Return how many tasks are meant; ``most`` where there are as many or more."""
        condition, values = wanted.clause()
        query = f"SELECT count(*) FROM (SELECT 1 FROM task WHERE {condition} LIMIT ?)"
        return int((await self._fetch(query, [*values, most]))[0][0])

    async def task(self, id: str) -> TaskRow | None:
        """Return one task."""
        rows = await self._fetch(f"SELECT {_SELECT} FROM task WHERE id = ?", [id])
        return TaskRow(*rows[0]) if rows else None

    async def of_root(self, root: str, limit: int = 300) -> list[TaskRow]:
        """Return the tasks of one workflow, the oldest first."""
        query = f"SELECT {_SELECT} FROM task WHERE root = ? OR id = ? ORDER BY seq LIMIT ?"
        return [TaskRow(*row) for row in await self._fetch(query, [root, root, limit])]

    async def attempts(self, id: str) -> list[AttemptRow]:
        """Return the attempts of a task that raised, the oldest first."""
        query = (
            "SELECT a.task, a.retries, a.at, a.worker, a.state, a.error, coalesce(t.text, ''), a.grouped"
            " FROM attempt a LEFT JOIN traceback t ON t.hash = a.traceback WHERE a.task = ? ORDER BY a.at LIMIT 200"
        )
        return [AttemptRow(*row) for row in await self._fetch(query, [id])]

    async def groups(self, since: float = 0.0, limit: int = 200) -> list[ErrorGroup]:
        """Return the errors since then, the latest first."""
        query = "SELECT * FROM grouped WHERE last >= ? ORDER BY last DESC LIMIT ?"
        return [ErrorGroup(*row) for row in await self._fetch(query, [since, limit])]

    async def minutes(self, since: float) -> list[MinuteRow]:
        """Return what ended in each minute since then, the oldest first."""
        query = "SELECT * FROM minute WHERE minute >= ? ORDER BY minute"
        return [MinuteRow(*row) for row in await self._fetch(query, [int(since // 60)])]

    async def names(self, limit: int = 1_000) -> list[str]:
        """Return the names of the tasks that ended of late."""
        rows = await self._fetch("SELECT DISTINCT name FROM minute ORDER BY name LIMIT ?", [limit])
        return [row[0] for row in rows]

    async def actions(self, limit: int = 100) -> list[ActionRow]:
        """Return what persons did, the latest first."""
        rows = await self._fetch(
            "SELECT at, who, what, outcome FROM action ORDER BY at DESC LIMIT ?", [limit]
        )
        return [ActionRow(*row) for row in rows]

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30.0)
        prepare(connection)
        return connection

    def _sweep_step(self, connection: sqlite3.Connection) -> int:
        old = self._now() - self._keep
        for table, column in (("action", "at"), ("grouped", "last")):
            connection.execute(f"DELETE FROM {table} WHERE {column} < ?", [old])
        connection.execute("DELETE FROM minute WHERE minute < ?", [int(old // 60)])
        ids = connection.execute("SELECT id FROM task WHERE changed < ? LIMIT ?", [old, _STEP]).fetchall()
        if not ids:
            surplus = connection.execute("SELECT count(*) FROM task").fetchone()[0] - self._most
            ids = connection.execute(
                "SELECT id FROM task ORDER BY seq LIMIT ?", [max(0, min(surplus, _STEP))]
            ).fetchall()
        return _delete(connection, [row[0] for row in ids])

    async def _fetch(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        reader = self._reader
        assert reader is not None, "the history is not open"
        return await self._in(self._reading, lambda: reader.execute(query, values).fetchall())

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


class _Intake:
    """Folds events into rows, in the writer's thread.

    :param rate: successes a second that are kept.
    """

    def __init__(self, mask: Mask, rate: float, now: Callable[[], float]) -> None:
        self._mask = mask
        self._rate = rate
        self._now = now
        self._last = now()
        self._open: dict[str, TaskRow] = {}
        self._stored: set[str] = set()
        self.share = 1.0

    def take(self, connection: sqlite3.Connection, events: Iterable[Mapping[str, Any]]) -> None:
        """Write what events say."""
        events = [event for event in events if isinstance(event.get("uuid"), str)]
        self._look_up(connection, {event["uuid"] for event in events} - self._open.keys())
        changed, attempts, ended = dict[str, TaskRow](), list[AttemptRow](), list[TaskRow]()
        for event in events:
            row = self._open.setdefault(event["uuid"], TaskRow(event["uuid"]))
            before = (row.state, row.ended)
            fold(row, event)
            changed[row.id] = row
            if row.state in ENDED and (row.state, row.ended) != before:
                ended.append(row)
            if (attempt := attempt_of(row, event)) is not None:
                attempts.append(attempt)
        for row in changed.values():
            self._hide(row)
        self._write_attempts(connection, attempts)
        _count_minutes(connection, ended)
        kept = self._sample(changed.values(), {attempt.task for attempt in attempts})
        _write_rows(connection, kept)
        self._stored.update(row.id for row in kept)
        self._forget()

    def _look_up(self, connection: sqlite3.Connection, ids: set[str]) -> None:
        for some in _in_steps(sorted(ids), 500):
            marks = ", ".join("?" * len(some))
            for values in connection.execute(f"SELECT {_SELECT} FROM task WHERE id IN ({marks})", some):
                row = TaskRow(*values)
                self._open[row.id] = row
                self._stored.add(row.id)

    def _hide(self, row: TaskRow) -> None:
        for column in _MASKED:
            if text := getattr(row, column):
                setattr(row, column, self._mask(text))

    def _sample(self, rows: Iterable[TaskRow], raised: set[str]) -> list[TaskRow]:
        """Return the rows to write: all but the successes above the rate."""
        now = self._now()
        room = self._rate * max(0.25, min(5.0, now - self._last))
        self._last = now
        kept, successes = list[TaskRow](), list[TaskRow]()
        for row in rows:
            dispensable = row.state == "SUCCESS" and row.id not in self._stored and row.id not in raised
            (successes if dispensable else kept).append(row)
        chosen = successes[: int(room)]
        if successes:
            self.share = len(chosen) / len(successes)
        return kept + chosen

    def _write_attempts(self, connection: sqlite3.Connection, attempts: Sequence[AttemptRow]) -> None:
        for attempt in attempts:
            text, error = self._mask(attempt.traceback), self._mask(attempt.error)
            key = blake2b(text.encode(errors="replace"), digest_size=12).hexdigest() if text else ""
            if text:
                connection.execute("INSERT OR IGNORE INTO traceback VALUES (?, ?)", (key, text))
            added = connection.execute(
                "INSERT OR IGNORE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*attempt[:5], error, key, attempt.group),
            ).rowcount
            if added:
                connection.execute(
                    "INSERT INTO grouped VALUES (?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (id) DO UPDATE SET"
                    " last = max(last, excluded.last), count = count + 1, example = excluded.example",
                    (
                        attempt.group,
                        self._open[attempt.task].name,
                        error_class(error),
                        place_of(text),
                        attempt.at,
                        attempt.at,
                        attempt.task,
                    ),
                )

    def _forget(self) -> None:
        """Remember no more tasks than there is room for; those that have ended go first."""
        if len(self._open) <= MOST_OPEN:
            return
        ended = [id for id, row in self._open.items() if row.state in ENDED]
        for id in ended or list(self._open)[: MOST_OPEN // 2]:
            del self._open[id]
            self._stored.discard(id)


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


def _delete(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    deleted = 0
    for some in _in_steps(ids, 500):
        marks = ", ".join("?" * len(some))
        connection.execute(f"DELETE FROM attempt WHERE task IN ({marks})", some)
        deleted += connection.execute(f"DELETE FROM task WHERE id IN ({marks})", some).rowcount
    return deleted


def _in_steps(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
