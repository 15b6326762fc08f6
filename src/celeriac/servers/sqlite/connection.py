"""The connection to one SQLite file: runs jobs in shared transactions, wakes listeners, and notices a replaced file.

Rules: everything here runs in the file's thread. A write is committed before its caller or any listener learns of it.
If a job raises, its own writes are undone, and those of other jobs in the same transaction stay. SQLite's errors are
translated into celeriac's.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from celeriac.errors import CeleriacError
from celeriac.servers.causes import as_cause
from celeriac.servers.sqlite.opening import error_code, make_tables, open_file
from celeriac.servers.sqlite.poke import Poker
from celeriac.servers.sqlite.reading import column
from celeriac.servers.sqlite.tables import LISTENERS

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_AWAY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""Primary result codes that another try may not meet again."""

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program holds its lock: end that program or wait for it",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock: wait for it",
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk failed: look at the system's log",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its directory exists and may be written",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it or name another file",
    sqlite3.SQLITE_READONLY: "it may not be written: check the permissions of the file and of its directory",
}

_FORGET = "DELETE FROM celeriac_listener WHERE name = ?"
_LISTENERS_OF = """
SELECT DISTINCT name FROM celeriac_listener
WHERE topic IN (SELECT value FROM json_each(:topics)) AND name <> :own AND typeof(name) = 'text'"""

Work = Callable[[sqlite3.Connection], T]
Topics = Callable[[], Collection[str]]
Answer = tuple[Any, BaseException | None]
"""The value that a job returned, and the error that it raised; one of the two is ``None``."""

_as_json = msgspec.json.Encoder().encode


class Job(msgspec.Struct, frozen=True):
    """Something to be done in a transaction.

    :param topics: called when the job is done; returns the topics whose listeners are woken.
    """

    work: Work[Any]
    topics: Topics | None = None


class FileConnection:
    """A connection that opens itself, and opens anew a file that was removed or replaced.

    :param schema: the tables that must be there, as SQL.
    :param mode: the rights of a file that is made.
    :param busy: seconds for which a write waits for those of other connections.
    :param away: raised for what may pass (locks, a full disk).
    :param refused: raised for what will not.
    :param on_new_file: writes what a file must hold that took the place of the one in use.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        mode: int,
        busy: float,
        away: type[CeleriacError],
        refused: type[CeleriacError],
        on_new_file: Work[None],
    ) -> None:
        self.path = path
        self._place = str(path)
        self._schemas = [LISTENERS, schema]
        self._has_tables = False
        self._mode = mode
        self._busy = busy
        self._away = away
        self._refused = refused
        self._on_new_file = on_new_file
        self._is_new_file = False
        self._identity = (0, 0)
        self._connection: sqlite3.Connection | None = None
        self._poker = Poker(path)
        self.own = ""
        """The listener that is not poked: it is this process's own."""

    def require(self, schema: str) -> None:
        """Make these tables, if they are missing, before the next job runs."""
        if schema not in self._schemas:
            self._schemas.append(schema)
            self._has_tables = False

    def read(self, work: Work[T]) -> T:
        """Do work that only reads."""
        with self._translated():
            return work(self._opened())

    def write(self, jobs: Sequence[Job]) -> list[Answer]:
        """Do the jobs in one transaction and poke the listeners; return an answer for each."""
        try:
            with self._translated():
                connection = self._opened()
                answers, names = _in_transaction(connection, jobs, self.own)
        except Exception as error:  # noqa: BLE001 - the caller of the job gets it
            if len(jobs) == 1 or isinstance(error, self._away):
                return [(None, error)] * len(jobs)
            return [answer for job in jobs for answer in self.write([job])]
        gone = self._poker.poke(names)
        if gone:
            self.forget(gone)
        return [(value, self._as_ours(error)) for value, error in answers]

    def forget(self, names: Collection[str]) -> None:
        """Delete these listeners. If that fails, the next process that pokes them tries again."""
        rows = [(name,) for name in names]
        if self._connection is not None:
            with suppress(CeleriacError), self._translated():
                self._connection.executemany(_FORGET, rows)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._poker.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_replaced():
            self._leave_old(self._connection)
        if self._connection is None:
            self._connection = self._open()
        if not self._has_tables:
            _run(self._connection, lambda connection: make_tables(connection, self._schemas))
            self._has_tables = True
        if self._is_new_file:
            _run(self._connection, self._on_new_file)
            self._is_new_file = False
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._has_tables = False
        if (
            not self.path.parent.is_dir()
        ):  # SQLite itself would find sub/.. without sub, and our sockets would not
            raise self._refused(f"database file {self._place!r}: {_ADVICE[sqlite3.SQLITE_CANTOPEN]}")
        connection = open_file(self.path, self._mode, self._busy)
        try:
            _run(connection, lambda connection: make_tables(connection, self._schemas))
            found = self.path.stat()
        except BaseException:
            connection.close()
            raise
        self._has_tables = True
        self._identity = (found.st_dev, found.st_ino)
        return connection

    def _is_replaced(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._identity

    def _leave_old(self, old: sqlite3.Connection) -> None:
        """Close the replaced file: no other process would see what is written to it."""
        _logger.warning(
            "database file %r was removed or replaced while it was in use: it is opened anew, and what only the old "
            "one held is lost",
            self._place,
        )
        self._connection = None
        self._is_new_file = True
        old.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from as_cause(error)

    def _as_ours(self, error: BaseException | None) -> BaseException | None:
        if not isinstance(error, sqlite3.Error):
            return error
        ours = self._translate(error)
        ours.__cause__ = as_cause(error)
        return ours

    def _translate(self, error: sqlite3.Error) -> CeleriacError:
        code = error_code(error)
        kind = self._away if code in _AWAY else self._refused
        return kind(f"database file {self._place!r}: {_ADVICE.get(code, error)}")


def _in_transaction(
    connection: sqlite3.Connection, jobs: Sequence[Job], own: str
) -> tuple[list[Answer], Collection[str]]:
    """Do the jobs and commit; return their answers, and the names of the listeners to poke.

    Undo all and raise where that fails.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if len(jobs) == 1:
            answers: list[Answer] = [(jobs[0].work(connection), None)]
        else:
            answers = [_in_savepoint(connection, job) for job in jobs]
        names = _listeners_of(connection, jobs, answers, own)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers, names


def _in_savepoint(connection: sqlite3.Connection, job: Job) -> Answer:
    connection.execute("SAVEPOINT job")
    try:
        answer: Answer = (job.work(connection), None)
    except Exception as error:
        if not connection.in_transaction:
            raise  # SQLite has undone what the others wrote too
        connection.execute("ROLLBACK TO job")
        answer = (None, error)
    connection.execute("RELEASE job")
    return answer


def _listeners_of(
    connection: sqlite3.Connection, jobs: Sequence[Job], answers: Sequence[Answer], own: str
) -> list[str]:
    topics: set[str] = set()
    for job, (_, error) in zip(jobs, answers, strict=True):
        if job.topics is not None and error is None:
            topics.update(job.topics())
    if not topics:
        return []
    return column(connection, _LISTENERS_OF, {"topics": _as_json(sorted(topics)).decode(), "own": own})


def _run(connection: sqlite3.Connection, work: Work[None]) -> None:
    """Do the work in a transaction of its own."""
    _in_transaction(connection, [Job(work)], "")
