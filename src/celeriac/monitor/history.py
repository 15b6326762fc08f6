"""Keeps what became of tasks, and finds it again, in a SQLite file or in PostgreSQL.

Rules: what is kept, and for how long, is the same in every store.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from celeriac.errors import ConfigError
from celeriac.monitor.filters import Filter
from celeriac.monitor.intake import Intake
from celeriac.monitor.masking import Mask
from celeriac.monitor.rows import ActionRow, AttemptRow, ErrorGroup, MinuteRow, TaskRow
from celeriac.monitor.sqlite_store import SqliteStore, in_steps
from celeriac.monitor.store import COLUMNS, Store

_SELECT = ", ".join(f"task.{column}" for column in COLUMNS)
_STEP = 1_000


class Page(msgspec.Struct, frozen=True):
    """Some tasks, the newest first.

    :param next: what to give as ``before`` for the following page; ``None`` on the last.
    """

    tasks: tuple[TaskRow, ...]
    next: int | None


DEFAULT = "celeriac-history.db"
"""The file that is used where none is named."""


class History:
    """What became of tasks.

    :param path: of a file, which is made where it is missing, or the URL of a PostgreSQL database.
    :param mask: hides secrets.
    :param keep: seconds for which an ended task is kept.
    :param most: tasks that are kept at most.
    :param rate: successes a second that are kept.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        mask: Mask,
        keep: float = 7 * 86400.0,
        most: int = 1_000_000,
        rate: float = 500.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = open_store(path)
        self._mask = mask
        self._keep = keep
        self._most = most
        self._now = now
        self._intake = Intake(mask, rate, now)
        self._taking = asyncio.Lock()

    async def open(self) -> None:
        """Open the store. Raises ``CeleriacError``, or for a file ``sqlite3.Error`` and ``OSError``."""
        await self._store.open()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    @property
    def share(self) -> float:
        """The part of the recent successes that was kept, from 0 to 1."""
        return self._intake.share

    async def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in what events say of tasks."""
        async with self._taking:
            unknown = self._intake.unknown(events)
            if unknown:
                self._intake.learn(await self._store.known(unknown))
            batch = await asyncio.get_running_loop().run_in_executor(None, self._intake.take, events)
            await self._store.write(batch)
            self._intake.wrote(batch)

    async def sweep(self) -> int:
        """Delete what is too old or too much, in small steps; return how many tasks."""
        deleted = 0
        while (step := await self._sweep_step()) > 0:
            deleted += step
        return deleted

    async def note(self, who: str, what: str, outcome: str) -> None:
        """Keep what a person did."""
        row = (self._now(), who, self._mask(what), self._mask(outcome))
        await self._store.run([("INSERT INTO action VALUES (?, ?, ?, ?)", row)])

    async def delete(self, ids: Sequence[str]) -> int:
        """Forget these tasks; return how many were known."""
        deleted = 0
        for some in in_steps(ids, 500):
            marks = ", ".join("?" * len(some))
            changed = await self._store.run(
                [
                    (f"DELETE FROM attempt WHERE task IN ({marks})", some),
                    (f"DELETE FROM again WHERE task IN ({marks})", some),
                    (f"DELETE FROM task WHERE id IN ({marks})", some),
                ]
            )
            deleted += changed[2]
        return deleted

    async def forget(self, ids: Sequence[str]) -> int:
        """Forget these tasks, and errors that no other task had; return how many tasks were known."""
        deleted = await self.delete(ids)
        unused = "NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.grouped = grouped.id)"
        orphaned = "NOT EXISTS (SELECT 1 FROM grouped WHERE grouped.id = grouped_hour.grouped)"
        await self._store.run(
            [(f"DELETE FROM grouped WHERE {unused}", []), (f"DELETE FROM grouped_hour WHERE {orphaned}", [])]
        )
        return deleted

    async def note_again(self, ids: Sequence[str]) -> None:
        """Keep that these tasks were run again as they are now; a failure that comes later is another one."""
        for some in in_steps(ids, 500):
            marks = ", ".join("?" * len(some))
            query = (
                f"INSERT INTO again (task, changed) SELECT id, changed FROM task WHERE id IN ({marks})"
                " ON CONFLICT (task) DO UPDATE SET changed = excluded.changed"
            )
            await self._store.run([(query, some)])

    async def tasks(self, wanted: Filter, *, limit: int = 50, before: int | None = None) -> Page:
        """Return up to ``limit`` tasks, the newest first."""
        condition, values = wanted.clause(self._store.text_clause)
        if before is not None:
            condition, values = f"{condition} AND task.seq < ?", [*values, before]
        query = f"SELECT seq, {_SELECT} FROM task WHERE {condition} ORDER BY seq DESC LIMIT ?"
        rows = await self._store.fetch(query, [*values, limit + 1])
        more = len(rows) > limit
        return Page(tuple(TaskRow(*row[1:]) for row in rows[:limit]), rows[limit - 1][0] if more else None)

    async def ids(self, wanted: Filter, limit: int) -> list[str]:
        """Return the ids of up to ``limit`` tasks that are meant."""
        condition, values = wanted.clause(self._store.text_clause)
        query = f"SELECT id FROM task WHERE {condition} ORDER BY seq DESC LIMIT ?"
        return [row[0] for row in await self._store.fetch(query, [*values, limit])]

    async def count(self, wanted: Filter, most: int = 10_000) -> int:
        """Return how many tasks are meant; ``most`` where there are as many or more."""
        condition, values = wanted.clause(self._store.text_clause)
        query = f"SELECT count(*) FROM (SELECT 1 FROM task WHERE {condition} LIMIT ?) AS found"
        return int((await self._store.fetch(query, [*values, most]))[0][0])

    async def task(self, id: str) -> TaskRow | None:
        """Return one task."""
        rows = await self._store.fetch(f"SELECT {_SELECT} FROM task WHERE id = ?", [id])
        return TaskRow(*rows[0]) if rows else None

    async def of_root(self, root: str, limit: int = 300) -> list[TaskRow]:
        """Return the tasks of one workflow, the oldest first."""
        query = f"SELECT {_SELECT} FROM task WHERE root = ? OR id = ? ORDER BY seq LIMIT ?"
        return [TaskRow(*row) for row in await self._store.fetch(query, [root, root, limit])]

    async def attempts(self, id: str) -> list[AttemptRow]:
        """Return the attempts of a task that raised, the oldest first."""
        query = (
            "SELECT a.task, a.retries, a.at, a.worker, a.state, a.error, coalesce(t.text, ''), a.grouped"
            " FROM attempt a LEFT JOIN traceback t ON t.hash = a.traceback WHERE a.task = ? ORDER BY a.at LIMIT 200"
        )
        return [AttemptRow(*row) for row in await self._store.fetch(query, [id])]

    async def groups(self, since: float = 0.0, limit: int = 200) -> list[ErrorGroup]:
        """Return the errors since then, the latest first."""
        query = "SELECT * FROM grouped WHERE last >= ? ORDER BY last DESC LIMIT ?"
        return [ErrorGroup(*row) for row in await self._store.fetch(query, [since, limit])]

    async def by_hour(self, hours: int) -> Mapping[str, Sequence[int]]:
        """Return, of each error of the last hours, how often it came up in each, the present one last."""
        first = int(self._now() // 3600) - hours + 1
        found = defaultdict[str, list[int]](lambda: [0] * hours)
        query = "SELECT grouped, hour, count FROM grouped_hour WHERE hour >= ? AND hour < ?"
        for group, hour, number in await self._store.fetch(query, [first, first + hours]):
            found[group][hour - first] += number
        return dict(found)

    async def minutes(self, since: float) -> list[MinuteRow]:
        """Return what ended in each minute since then, the oldest first."""
        query = "SELECT * FROM minute WHERE minute >= ? ORDER BY minute"
        return [MinuteRow(*row) for row in await self._store.fetch(query, [int(since // 60)])]

    async def names(self, limit: int = 1_000) -> list[str]:
        """Return the names of the tasks that ended of late."""
        rows = await self._store.fetch("SELECT DISTINCT name FROM minute ORDER BY name LIMIT ?", [limit])
        return [row[0] for row in rows]

    async def actions(self, limit: int = 100) -> list[ActionRow]:
        """Return what persons did, the latest first."""
        rows = await self._store.fetch(
            "SELECT at, who, what, outcome FROM action ORDER BY at DESC LIMIT ?", [limit]
        )
        return [ActionRow(*row) for row in rows]

    async def _sweep_step(self) -> int:
        old = self._now() - self._keep
        await self._store.run(
            [
                ("DELETE FROM action WHERE at < ?", [old]),
                ("DELETE FROM grouped WHERE last < ?", [old]),
                ("DELETE FROM grouped_hour WHERE hour < ?", [int(old // 3600)]),
                ("DELETE FROM minute WHERE minute < ?", [int(old // 60)]),
            ]
        )
        rows = await self._store.fetch("SELECT id FROM task WHERE changed < ? LIMIT ?", [old, _STEP])
        if not rows:
            surplus = (await self._store.fetch("SELECT count(*) FROM task", []))[0][0] - self._most
            query = "SELECT id FROM task ORDER BY seq LIMIT ?"
            rows = await self._store.fetch(query, [max(0, min(surplus, _STEP))])
        return await self.delete([row[0] for row in rows])


def open_store(path: Path | str) -> Store:
    """Return the store at a path, or at the URL of a PostgreSQL database.

    Raises ``ConfigError`` for a bad URL, and where the default file is a symbolic link.
    """
    if isinstance(path, str) and path.startswith(("postgresql://", "postgres://")):
        from celeriac.monitor.postgres_store import PostgresStore

        return PostgresStore(path)
    if str(path) == DEFAULT and Path(path).is_symlink():
        raise ConfigError(
            f"{str(Path(path).absolute())!r}, the file of the history where none is named, is a symbolic link, which "
            "another user may have put there: name the file that is meant"
        )
    return SqliteStore(Path(path))
