"""One SQLite file as the broker and the result store use it: a connection, the thread it lives in, and wake-ups.

Rules: the event loop never waits for the disk; a write is one ``BEGIN IMMEDIATE`` transaction, committed before its
caller goes on; the file is in WAL mode with ``synchronous=NORMAL``, so what was committed survives the death of any
process (the last moments before a power cut may be lost); SQLite's errors leave here as celeriac's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    StaticPool,
    Table,
    Text,
    create_engine,
    delete,
    inspect,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from celeriac.clock import Clock
from celeriac.errors import CeleriacError, EncodeError
from celeriac.servers.sqlite.poke import Listener, Poker

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 5.0
"""How long a write waits for those of other connections."""

LARGE = 1024 * 1024
"""Bytes that every SQLite takes."""

_ROW_REST = 65536
"""Bytes kept free for what else is in a row."""

_WAL_PAUSE = 0.005
"""Seconds between tries to put a new file in WAL mode while another connection does the same."""

_WAL_TRIES = int(_BUSY_SECONDS / _WAL_PAUSE)

_BLIND_POLL = 0.04
"""Seconds between looks at the file where no socket can be made to be poked through."""

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


class _Periodic(msgspec.Struct, eq=False):
    """A job that the thread does again and again."""

    period: float
    job: Callable[[Connection], None]
    next: float


def listener_table(metadata: MetaData) -> Table:
    """Describe the table of those who want to be poked: ``name`` of the socket file, ``topic`` it wants to hear of."""
    return Table(
        "celeriac_listener",
        metadata,
        Column("name", Text, primary_key=True),
        Column("topic", Text, primary_key=True, index=True),
    )


class SqliteLink:
    """Runs jobs on one connection in one thread, opened by the first job.

    :param path: the database file; made when missing.
    :param metadata: the tables that must be there.
    :param group: let the group of what is made here read and write it too; else only its owner may.
    :param away: raised for what may pass (locks, a full disk).
    :param refused: raised for what will not.
    :param on_new_file: writes what a file must hold that took the place of the one in use.
    """

    def __init__(
        self,
        path: str,
        metadata: MetaData,
        clock: Clock,
        *,
        away: type[CeleriacError],
        refused: type[CeleriacError],
        group: bool = False,
        on_new_file: Callable[[Connection], None] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._mode = 0o660 if group else 0o600
        self._metadata = metadata
        self._listeners = metadata.tables["celeriac_listener"]
        self._clock = clock
        self._away = away
        self._refused = refused
        self._jobs: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._periodic: list[_Periodic] = []
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._poker = Poker(self.path)
        self._ear: Listener | None = None
        self._seen_version = 0
        self._identity = (0, 0)
        self._is_new_file = False
        self._topics: set[str] = set()
        self._on_new_file = on_new_file

    async def write(
        self, job: Callable[[Connection], T], poke: Callable[[], Collection[str]] | None = None
    ) -> T:
        """Run the job in a transaction of its own, then poke those who listen for the topics.

        :param poke: asked for the topics when the job is done.
        """
        return await self._submit(lambda: self._transact(job, poke))

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run a job that only reads; it never waits for a writer."""
        return await self._submit(lambda: self._attempt(job))

    async def every(self, period: float, job: Callable[[Connection], None]) -> None:
        """Run the job in a transaction each ``period`` seconds until the link is closed; its errors are dropped."""
        await self._submit(lambda: self._schedule(period, lambda _: self._transact(job, None)))

    async def listen(self, wake: Callable[[], None], poll: float | None = None) -> None:
        """Have ``wake`` called in this loop when another process pokes one of the topics told by ``hear``.

        :param poll: seconds between looks at the file, for pokes that get lost; ``None`` looks only where there can
            be no pokes.
        """
        loop = asyncio.get_running_loop()
        try:
            ear = Listener(self.path, self._mode)
        except (OSError, AttributeError):
            poll = _BLIND_POLL
        else:
            self._ear = ear
            loop.add_reader(ear, _hear, ear, wake)
        if poll is not None:
            look = partial(self._look, loop=loop, wake=wake)
            await self._submit(partial(self._start_looking, poll, look))

    async def hear(self, topics: Collection[str]) -> None:
        """Be poked for these topics from now on."""
        self._topics.update(topics)
        if self._ear is not None and topics:
            rows = [{"name": self._ear.name, "topic": topic} for topic in topics]
            statement = insert(self._listeners).on_conflict_do_nothing()
            await self.write(lambda connection: connection.execute(statement, rows).rowcount)

    async def ignore(self, topics: Collection[str]) -> None:
        """Be poked for these topics no longer."""
        self._topics.difference_update(topics)
        if self._ear is not None and topics:
            table = self._listeners.c
            statement = delete(self._listeners).where(table.name == self._ear.name, table.topic.in_(topics))
            await self.write(lambda connection: connection.execute(statement).rowcount)

    async def check_size(self, size: int, what: str) -> None:
        """Raise ``EncodeError`` with both sizes for what is larger than SQLite takes (its ``SQLITE_LIMIT_LENGTH``).

        :param what: what has this size, for the error.
        """
        limit = await self.read(_largest)
        if size > limit:
            raise EncodeError(
                f"{what} is too large: it has {size} bytes, and database file {str(self.path)!r} takes {limit} at "
                "most; keep such a value elsewhere and send where it is"
            )

    async def version(self) -> int:
        """Return a number that changes when another connection has written (SQLite: ``PRAGMA data_version``)."""
        return await self.read(_version)

    @property
    def is_open(self) -> bool:
        """Whether a job was ever run and the link was not closed since."""
        return self._thread is not None

    async def close(self) -> None:
        """Close the connection and end the thread. Idempotent; the next job opens a new one."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        ear, self._ear = self._ear, None
        self._topics.clear()
        if ear is not None:
            asyncio.get_running_loop().remove_reader(ear)
            ear.close()
        self._jobs.put(lambda: self._take_leave(ear))
        await asyncio.to_thread(thread.join)

    # --- in the loop ---------------------------------------------------------------------------------------

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> bool:
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - it goes to the caller
                _tell(loop, future, future.set_exception, error)
            else:
                _tell(loop, future, future.set_result, value)
            return True

        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"sqlite {self.path.name}", daemon=True)
            self._thread.start()
        self._jobs.put(run)
        return future

    # --- in the thread -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        goes_on = True
        while goes_on:
            self._do_periodic()
            with contextlib.suppress(queue.Empty):
                goes_on = self._jobs.get(timeout=self._pause())()
        self._disconnect()

    def _pause(self) -> float | None:
        if not self._periodic:
            return None
        return max(0.0, min(entry.next for entry in self._periodic) - self._clock.monotonic())

    def _schedule(self, period: float, job: Callable[[Connection], None]) -> None:
        self._periodic.append(_Periodic(period, job, self._clock.monotonic() + period))

    def _start_looking(self, period: float, look: Callable[[Connection], None]) -> None:
        with contextlib.suppress(CeleriacError):  # then the first look wakes once for nothing
            self._seen_version = self._attempt(_version)
        self._schedule(period, look)

    def _do_periodic(self) -> None:
        now = self._clock.monotonic()
        for entry in self._periodic:
            if entry.next <= now:
                entry.next = now + entry.period
                try:
                    self._attempt(entry.job)
                except CeleriacError:
                    _logger.debug("a periodic job on %s failed", self.path, exc_info=True)
                except Exception:
                    _logger.exception("a periodic job on %s failed", self.path)

    def _transact(self, job: Callable[[Connection], T], poke: Callable[[], Collection[str]] | None) -> T:
        value, names = self._attempt(lambda connection: self._in_transaction(connection, job, poke))
        gone = self._poker.poke(names)
        if gone:
            self._attempt(lambda connection: self._in_transaction(connection, self._forget(gone), None))
        return value

    def _in_transaction(
        self,
        connection: Connection,
        job: Callable[[Connection], T],
        poke: Callable[[], Collection[str]] | None,
    ) -> tuple[T, Collection[str]]:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            value = job(connection)
            names = self._who_hears(connection, poke()) if poke else ()
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            if _driver(connection).in_transaction:
                connection.exec_driver_sql("ROLLBACK")
            raise
        return value, names

    def _attempt(self, job: Callable[[Connection], T]) -> T:
        try:
            if self._connection is not None and self._is_replaced():
                self._leave_old(self._connection)
            if self._connection is None:
                self._connection = self._connect()
                if self._is_new_file:
                    self._in_transaction(self._connection, self._join, None)
                    self._is_new_file = False
            return job(self._connection)
        except DBAPIError as error:
            raise self._translate(error) from error

    def _connect(self) -> Connection:
        self._make_file()
        connection = _engine(self.path).connect()
        try:
            _driver(connection).text_factory = _text
            # What a schema that somebody else wrote may call is harmless then.
            connection.exec_driver_sql("PRAGMA trusted_schema=OFF")
            self._use_wal(connection)
            connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            self._in_transaction(connection, self._prepare, None)
            found = self.path.stat()
            self._identity = (found.st_dev, found.st_ino)
        except BaseException:
            _disconnect(connection)
            raise
        return connection

    def _is_replaced(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._identity

    def _leave_old(self, old: Connection) -> None:
        """Close the file that was opened: nobody else would see what is written to it."""
        _logger.warning(
            "database file %r was removed or replaced while it was in use: it is opened anew, and what only the old "
            "one held is lost",
            str(self.path),
        )
        self._connection = None
        self._is_new_file = True
        self._seen_version = -1
        _disconnect(old)

    def _join(self, connection: Connection) -> None:
        """Make known in a new file what was in the old one."""
        if self._ear is not None and self._topics:
            rows = [{"name": self._ear.name, "topic": topic} for topic in sorted(self._topics)]
            connection.execute(insert(self._listeners).on_conflict_do_nothing(), rows)
        if self._on_new_file is not None:
            self._on_new_file(connection)

    def _make_file(self) -> None:
        """Make the file with the rights that are wanted; SQLite gives its own files beside it the same."""
        with contextlib.suppress(OSError):  # it is there, or SQLite says what is wrong
            made = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, self._mode)
            try:
                if hasattr(os, "fchmod"):  # Windows has no such rights
                    os.fchmod(made, self._mode)
            finally:
                os.close(made)

    def _use_wal(self, connection: Connection) -> None:
        """Put the file in WAL mode; SQLite refuses at once, whatever its timeout, while another opens the new file."""
        for tries_left in reversed(range(_WAL_TRIES)):
            try:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except DBAPIError as error:
                if not tries_left or _code(error) != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(_WAL_PAUSE)
            else:
                return

    def _prepare(self, connection: Connection) -> None:
        """Make the tables that are missing, and the columns that a table made by an older program lacks."""
        self._metadata.create_all(connection)
        for table in self._metadata.tables.values():
            present = {column["name"] for column in inspect(connection).get_columns(table.name)}
            for column in table.columns:
                if column.name not in present:
                    kind = column.type.compile(connection.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")

    def _disconnect(self) -> None:
        self._periodic.clear()
        self._poker.close()
        if self._connection is not None:
            _disconnect(self._connection)
            self._connection = None

    def _take_leave(self, ear: Listener | None) -> bool:
        if ear is not None and self._connection is not None:
            with contextlib.suppress(CeleriacError):  # the next who pokes it finds out
                self._transact(self._forget([ear.name]), None)
        return False

    def _look(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]
    ) -> None:
        """Wake when another connection has written since the last look."""
        version = _version(connection)
        if version != self._seen_version:
            self._seen_version = version
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake)

    def _who_hears(self, connection: Connection, topics: Collection[str]) -> list[str]:
        if not topics:
            return []
        table = self._listeners.c
        own = self._ear.name if self._ear else ""
        found = select(table.name).where(table.topic.in_(sorted(topics)), table.name != own).distinct()
        return [name for name in connection.execute(found).scalars() if isinstance(name, str)]

    def _forget(self, names: Collection[str]) -> Callable[[Connection], int]:
        statement = delete(self._listeners).where(self._listeners.c.name.in_(names))
        return lambda connection: connection.execute(statement).rowcount

    def _translate(self, error: DBAPIError) -> CeleriacError:
        code = _code(error)
        kind = self._away if code in _AWAY else self._refused
        return kind(f"database file {str(self.path)!r}: {_ADVICE.get(code, error.orig)}")


def _text(value: bytes) -> str:
    """Return text of the file; what is no UTF-8 must not make the rest unreadable."""
    return value.decode(errors="replace")


def _code(error: DBAPIError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF


def _engine(path: Path) -> Engine:
    return create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",  # transactions are begun and committed here, by name
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
    )


def _disconnect(connection: Connection) -> None:
    connection.close()
    connection.engine.dispose()


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def _hear(ear: Listener, wake: Callable[[], None]) -> None:
    ear.drain()
    wake()


def _largest(connection: Connection) -> int:
    return _driver(connection).getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROW_REST


def _version(connection: Connection) -> int:
    (version,) = _driver(connection).execute("PRAGMA data_version").fetchone()
    return int(version)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], settle: Callable[[Any], None], answer: Any
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(lambda: None if future.done() else settle(answer))
