"""One SQLite file as the broker and the result store use it: the thread that its connection lives in, and wake-ups.

Rules: the event loop never waits for the disk; a write is committed before its caller goes on; writes that wait at the
same time share a transaction, and the event loop is woken once for all of their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

from celeriac.clock import Clock
from celeriac.errors import CeleriacError, EncodeError
from celeriac.servers.sqlite.connection import FileConnection, Job, Topics, Work
from celeriac.servers.sqlite.limits import USUAL
from celeriac.servers.sqlite.poke import Listener
from celeriac.servers.sqlite.reading import scalar
from celeriac.servers.sqlite.thread import JobThread

T = TypeVar("T")

LARGE = 1024 * 1024
"""Bytes that every SQLite takes."""

_ROW_REST = 65536
"""Bytes kept free for what else is in a row."""

_BLIND_POLL = 0.04
"""Seconds between looks at the file where no socket can be made to be poked through."""

_HEAR = "INSERT INTO celeriac_listener (name, topic) VALUES (?, ?) ON CONFLICT DO NOTHING"
_IGNORE = "DELETE FROM celeriac_listener WHERE name = ? AND topic = ?"


class SqliteLink:
    """Does jobs on one connection in one thread, which the first job opens.

    :param path: the database file; made when missing.
    :param schema: the tables that must be there, as SQL.
    :param group: let the group of what is made here read and write it too; else only its owner may.
    :param busy: seconds for which a write waits for those of other connections.
    :param away: raised for what may pass (locks, a full disk).
    :param refused: raised for what will not.
    :param on_new_file: writes what a file must hold that took the place of the one in use.
    """

    def __init__(
        self,
        path: str,
        schema: str,
        clock: Clock,
        *,
        away: type[CeleriacError],
        refused: type[CeleriacError],
        group: bool = False,
        busy: float = USUAL.busy,
        on_new_file: Work[None] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._mode = 0o660 if group else 0o600
        self._file = FileConnection(self.path, schema, self._mode, busy, away, refused, self._join)
        self._thread = JobThread(self._file, clock)
        self._listener: Listener | None = None
        self._seen_version = 0
        self._topics: set[str] = set()
        self._on_new_file = on_new_file

    def require(self, schema: str) -> None:
        """See to it that these tables are there too before the next job is done."""
        self._file.require(schema)

    async def write(self, work: Work[T], topics: Topics | None = None) -> T:
        """Do the work in a transaction, which others may share, then wake the listeners of the topics.

        :param topics: called when the work is done.
        """
        done: T = await self._thread.do(Job(work, topics))
        return done

    async def read(self, work: Work[T]) -> T:
        """Do work that only reads; it never waits for a writer."""
        done: T = await self._thread.do(partial(self._file.read, work))
        return done

    async def listen(self, wake: Callable[[], None], poll: float | None = None) -> None:
        """Have ``wake`` called in this loop when another process pokes one of the topics named in ``hear``.

        :param poll: seconds between looks at the file, for pokes that get lost; ``None`` looks only where there can
            be no pokes.
        """
        loop = asyncio.get_running_loop()
        try:
            listener = Listener(self.path, self._mode)
        except (OSError, AttributeError):
            poll = _BLIND_POLL
        else:
            self._listener = listener
            self._file.own = listener.name
            loop.add_reader(listener, _wake, listener, wake)
        if poll is not None:
            await self._thread.do(partial(self._start_looking, poll, loop, wake))

    async def hear(self, topics: Collection[str]) -> None:
        """Be poked for these topics from now on."""
        self._topics.update(topics)
        if self._listener is not None and topics:
            rows = [(self._listener.name, topic) for topic in topics]
            await self.write(lambda connection: connection.executemany(_HEAR, rows).rowcount)

    async def ignore(self, topics: Collection[str]) -> None:
        """Be poked for these topics no longer."""
        self._topics.difference_update(topics)
        if self._listener is not None and topics:
            rows = [(self._listener.name, topic) for topic in topics]
            await self.write(lambda connection: connection.executemany(_IGNORE, rows).rowcount)

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
        """Whether a job was ever done and the link was not closed since."""
        return self._thread.runs

    async def close(self) -> None:
        """Close the connection and end the thread. Idempotent; the next job opens a new one."""
        if not self._thread.runs:
            return
        listener, self._listener = self._listener, None
        self._topics.clear()
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._file.own = ""
        await self._thread.end([listener.name] if listener is not None else [])

    # --- in the thread -------------------------------------------------------------------------------------

    def _join(self, connection: sqlite3.Connection) -> None:
        """Make known in a new file what was in the old one."""
        self._seen_version = -1
        if self._listener is not None:
            name = self._listener.name
            connection.executemany(_HEAR, [(name, topic) for topic in sorted(self._topics)])
        if self._on_new_file is not None:
            self._on_new_file(connection)

    def _start_looking(self, poll: float, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        with contextlib.suppress(CeleriacError):  # then the first look wakes once for nothing
            self._seen_version = self._file.read(_version)
        self._thread.repeat(poll, lambda: self._look(loop, wake))

    def _look(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        """Wake when another connection has written since the last look."""
        version = self._file.read(_version)
        if version != self._seen_version:
            self._seen_version = version
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake)


def _wake(listener: Listener, wake: Callable[[], None]) -> None:
    listener.drain()
    wake()


def _largest(connection: sqlite3.Connection) -> int:
    return connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROW_REST


def _version(connection: sqlite3.Connection) -> int:
    return int(scalar(connection, "PRAGMA data_version"))
