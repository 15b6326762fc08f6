"""The connections of one process to one database: two to work on, and one to listen on.

Rules: a connection is opened when it is needed, and dropped when anything but an answer of the server ended its use.
Each user of the connections registers, and they are closed with the last one. Behind a pooler that gives a server's
session to one transaction at a time nothing is kept in a session: no prepared statement, no setting, no lock.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
import msgspec

from celeriac.errors import Finding
from celeriac.servers.postgres.connection import ALWAYS, ANEW, ANSWER, PatientConnection
from celeriac.servers.postgres.listening import DOWN, Listening
from celeriac.servers.postgres.migrations import prepare
from celeriac.servers.postgres.tls import check_files, lowered
from celeriac.servers.postgres.url import Target
from celeriac.servers.tls import BadFile

_log = logging.getLogger("celeriac.postgres")

T = TypeVar("T")

Connection: TypeAlias = Any
"""A connection of the driver, which ships no types."""

_WORKING = 2
"""Connections that work: one takes while the other settles."""

# A machine that vanishes is noticed within 25 seconds.
_LISTENING_SETTINGS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}

_FACTS = """
    SELECT pg_backend_pid() AS pid, current_schema() AS schema, current_user AS role,
           current_setting('server_version') AS version, current_setting('server_version_num')::int AS number"""

OLDEST = 130000
"""The oldest version that is supported, as PostgreSQL numbers them."""


class Facts(msgspec.Struct, frozen=True):
    """What the database is.

    :param pooled: whether a pooler is in between, so that a session is no session.
    """

    schema: str
    role: str
    version: str
    pooled: bool

    @property
    def quoted_schema(self) -> str:
        """The schema as a statement names it."""
        return '"' + self.schema.replace('"', '""') + '"'


class UnfitServer(Exception):
    """The server, or what it lets us do, is not what is needed; the text says what to do."""


class Connections:
    """The connections of one process to one database.

    :param target: which database.
    :param role: what the connections are for, which the server's list of them shows.
    :param connect_timeout: seconds after which an attempt to connect is given up.
    :param patience: seconds without a byte from either side after which a statement is given up.
    """

    def __init__(self, target: Target, role: str, connect_timeout: float, patience: float = ANSWER) -> None:
        self.target = target
        self._role = role
        self._connect_timeout = target.connect_timeout or connect_timeout
        self._patience = patience
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(_WORKING)
        self._users: set[object] = set()
        self._facts: Facts | None = None
        self._ready: set[str] = set()
        self._preparing = asyncio.Lock()
        self._pooled = False
        self.listening = Listening(self._connect_listening)

    def join(self, user: object) -> None:
        """Note that the user uses these connections until it leaves."""
        self._users.add(user)

    async def leave(self, user: object) -> None:
        """Close the connections if nobody else uses them. They are opened again when they are used again."""
        self._users.discard(user)
        if self._users:
            return
        await self.listening.close()
        self._ready.clear()
        idle, self._idle = self._idle, []
        for connection in idle:
            await close(connection)

    @asynccontextmanager
    async def session(self, *parts: str, keeps_plans: bool = False) -> AsyncIterator[Connection]:
        """Have a connection for one statement, or one transaction.

        :param parts: the parts of the tables that it needs.
        :param keeps_plans: plan each statement once; see ``connection``.
        """
        async with self._room:
            connection = await self._open(keeps_plans)
            try:
                if not self._ready.issuperset(parts):
                    await self._prepare(connection, parts)
                if self._pooled:
                    async with self._set_up(connection):
                        yield connection
                else:
                    await connection.keep_plans(keeps_plans)
                    yield connection
            except (asyncpg.PostgresError, asyncpg.DataError, asyncio.CancelledError) as error:
                # After a cancellation the driver asks the server to give up, and waits for that before the next use.
                if isinstance(error, asyncpg.UndefinedTableError):
                    self._ready.clear()
                raise
            except BaseException:
                connection.terminate()
                raise
            finally:
                if not connection.is_closed():
                    self._idle.append(connection)

    async def migrate(self, *parts: str) -> list[str]:
        """Bring parts of the tables up to date; return the steps that were done."""
        async with self.session() as connection:
            return [step for part in parts for step in await prepare(connection, part)]

    async def aside(self, statement: str) -> None:
        """Run a statement on a connection that is opened for it, for as long as it takes."""
        connection = await self.connect_aside()
        try:
            await connection.execute(statement, timeout=3600.0)
        finally:
            await close(connection)

    async def connect_aside(self) -> Connection:
        """Open a connection for statements that name the schema, in the event loop of the caller."""
        settings: dict[str, str] | None = None if self._pooled and self.target.listen is None else {}
        return await self._connect(self.target.listen or self.target, settings)

    async def facts(self) -> Facts:
        """Return what the database is."""
        if self._facts is None:
            async with self.session():
                pass
        assert self._facts is not None
        return self._facts

    @property
    def has_sessions(self) -> bool:
        """Whether there is a way to listen, and to hold a lock."""
        return not self._pooled or self.target.listen is not None

    def lowered(self) -> list[Finding]:
        """Return a finding where the URL turns a check of TLS off."""
        text = lowered(self.target.tls)
        return (
            [Finding(f"PostgreSQL at {self.target.place}: {text}", "give sslmode=verify-full")]
            if text
            else []
        )

    def lock_class(self, schema: str) -> int:
        """Return the first number of our advisory locks, which differs for each schema."""
        return zlib.crc32(f"celeriac {schema}".encode()) - 2**31

    # --- opening

    async def _open(self, keeps_plans: bool) -> Connection:
        """Return an idle connection, if there is one, best one of that kind; else a new one."""
        self._idle = [connection for connection in self._idle if not connection.is_closed()]
        if self._idle:
            chosen = next((one for one in self._idle if one.keeps_plans is keeps_plans), self._idle[-1])
            self._idle.remove(chosen)
            return chosen
        connection = await self._connect_working()
        if self._facts is None:
            try:
                await self._learn(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _connect_working(self) -> Connection:
        if not self._pooled:
            try:
                return await self._connect(self.target, {**ALWAYS, **ANEW})
            except asyncpg.PostgresError as error:
                if "startup parameter" not in str(error):
                    raise
                self._pooled = True  # pgbouncer takes no settings that it does not know
        return await self._connect(self.target, None)

    async def _connect_listening(self) -> Connection:
        if not self.has_sessions:
            raise UnfitServer(
                f"behind the pooler at {self.target.place} nothing can be listened to, and no worker can show that it "
                "lives: give the URL ?listen_url= with a direct address of the same database, percent-encoded"
            )
        return await self._connect(self.target.listen or self.target, _LISTENING_SETTINGS)

    async def _connect(self, target: Target, settings: dict[str, str] | None) -> Connection:
        if target.tls:
            try:
                check_files(target.tls)
            except BadFile as error:
                raise UnfitServer(
                    f"the TLS files of PostgreSQL at {target.place} cannot be used: {error}"
                ) from error
        name = target.application_name or f"celeriac {self._role}"
        given = {"application_name": name[:63]}
        if settings is not None:
            given |= settings
            if target.schema:
                given["search_path"] = target.schema
        connection = await asyncpg.connect(
            **target.address,
            timeout=self._connect_timeout,
            connection_class=PatientConnection,
            statement_cache_size=0 if settings is None else 100,
            server_settings=given,
        )
        assert isinstance(connection, PatientConnection)
        connection.patience = self._patience
        return connection

    async def _learn(self, connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(self._settings_text())
            row = await connection.fetchrow(_FACTS)
        assert row is not None
        if row["number"] < OLDEST:
            raise UnfitServer(
                f"PostgreSQL at {self.target.place} is {row['version']}: celeriac needs 13 or newer"
            )
        if row["schema"] is None:
            raise UnfitServer(
                f"there is no schema {self.target.schema or 'in the search path'!r} in {self.target.place}: make it, "
                "or name another with ?schema="
            )
        if row["pid"] != connection.get_server_pid() and not self._pooled:
            self._pooled = True
            raise ConnectionResetError(
                "a pooler stands before the database: connecting anew without sessions"
            )
        if self._facts is not None:  # another connection was opened meanwhile
            return
        if self._pooled and self.target.listen is None:
            _log.warning(
                "PostgreSQL at %s is behind a pooler: messages and results are polled for, and the messages of a "
                "worker that dies come back only after a lease; give the URL ?listen_url= with a direct address",
                self.target.place,
            )
        self._facts = Facts(row["schema"], row["role"], row["version"], self._pooled)

    @asynccontextmanager
    async def _set_up(self, connection: Connection) -> AsyncIterator[None]:
        """Have our settings for the time of the block, which behind a pooler is a transaction."""
        if not self._pooled:
            yield
            return
        async with connection.transaction():
            await connection.execute(self._settings_text())
            yield

    def _settings_text(self) -> str:
        path = f"; SET LOCAL search_path = {self.target.schema}" if self.target.schema else ""
        return f"SET LOCAL plan_cache_mode = force_custom_plan{path}"

    async def _prepare(self, connection: Connection, parts: tuple[str, ...]) -> None:
        async with self._preparing:
            for part in parts:
                if part not in self._ready:
                    async with self._set_up(connection):
                        await prepare(connection, part)
                    self._ready.add(part)  # only now is it committed


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Do work whose transaction the server undid because of another one, again."""
    for _ in range(3):
        with suppress(asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            return await work()
    return await work()


async def close(connection: Connection) -> None:
    """Close a connection, in order where that is possible."""
    try:
        await connection.close(timeout=5.0)
    except DOWN:
        connection.terminate()
