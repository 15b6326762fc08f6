"""What one broker or result store calls its database through.

Rules: a call is one statement, or one transaction; the driver's errors are translated here into those of the broker or
the result store, with the original chained. What the server undid for another's sake is done again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from celeriac.errors import CeleriacError
from celeriac.servers.causes import as_cause, next_step
from celeriac.servers.postgres.connections import Connection, Connections, Facts, UnfitServer, retried
from celeriac.servers.postgres.migrations import TablesMissing
from celeriac.servers.tls import refusal as tls_refusal

T = TypeVar("T")

_NO_TLS = "rejected SSL upgrade"
"""What the driver says of a server that speaks no TLS."""

_PASSING = ("08", "40", "53", "57", "58", "55P03", "25006", "XX")
"""Codes, or classes of codes, of what may be over soon: no connection, no room, a server that ends or is a replica."""

_UNFIT = (UnfitServer, TablesMissing)
_TRANSLATED = (
    *_UNFIT,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class PostgresLink:
    """Calls to one database.

    :param connections: the connections to it, which may be shared.
    :param parts: the parts of the tables that the calls need.
    :param unavailable: the error to raise when another try may help.
    :param refused: the error to raise when another try will not help.
    """

    def __init__(
        self,
        connections: Connections,
        *parts: str,
        unavailable: type[CeleriacError],
        refused: type[CeleriacError],
    ) -> None:
        self.connections = connections
        self._parts = parts
        self._unavailable = unavailable
        self._refused = refused

    def needing(self, *parts: str) -> PostgresLink:
        """Return a link for calls that need further parts of the tables."""
        return PostgresLink(
            self.connections, *self._parts, *parts, unavailable=self._unavailable, refused=self._refused
        )

    async def fetch(self, statement: str, *values: Any, keeps_plan: bool = False) -> list[Any]:
        """Return the rows of one statement.

        :param keeps_plan: plan it once for each connection; see ``connection``.
        """
        return await self.run(lambda connection: connection.fetch(statement, *values), keeps_plans=keeps_plan)

    async def value(self, statement: str, *values: Any) -> Any:
        """Return the first column of the first row, ``None`` where there is no row."""
        return await self.run(lambda connection: connection.fetchval(statement, *values))

    async def count(self, statement: str, *values: Any) -> int:
        """Return how many rows a statement changed."""
        status: str = await self.run(lambda connection: connection.execute(statement, *values))
        return int(status.rpartition(" ")[2])

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, keeps_plans: bool = False) -> T:
        """Do work that is one statement."""

        async def whole() -> T:
            async with self.connections.session(*self._parts, keeps_plans=keeps_plans) as connection:
                return await work(connection)

        try:
            return await retried(whole)
        except _TRANSLATED as error:
            raise self._translate(error) from _cause(error)

    async def transact(self, work: Callable[[Connection], Awaitable[T]], *, keeps_plans: bool = False) -> T:
        """Do work in one transaction."""

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self.run(whole, keeps_plans=keeps_plans)

    async def migrate(self) -> list[str]:
        """Bring the tables up to date; return the steps that were done."""
        async with self.translated():
            return await self.connections.migrate(*self._parts)

    async def aside(self, statement: str) -> None:
        """Run a statement that may take long, and that no transaction may hold, on a connection of its own."""
        async with self.translated():
            await self.connections.aside(statement)

    async def hear(self, channel: str, wake: Callable[[str], None]) -> None:
        """Have ``wake`` called for what is said on the channel. Behind a pooler nothing is heard."""
        async with self.translated():
            await self.connections.facts()
            if self.connections.has_sessions:
                await self.connections.listening.hear(channel, wake)

    async def ignore(self, channel: str, wake: Callable[[str], None]) -> None:
        """Call it no longer."""
        await self.connections.listening.ignore(channel, wake)

    async def facts(self) -> Facts:
        """Return what the database is."""
        async with self.translated():
            return await self.connections.facts()

    def refusal(self, text: str) -> CeleriacError:
        """Return the owner's error for what will not pass by itself."""
        return self._refused(f"PostgreSQL at {self._place}: {text}")

    @asynccontextmanager
    async def translated(self) -> AsyncIterator[None]:
        """Raise our errors in place of the driver's."""
        try:
            yield
        except _TRANSLATED as error:
            raise self._translate(error) from _cause(error)

    @property
    def _place(self) -> str:
        return self.connections.target.place

    def _translate(self, error: Exception) -> CeleriacError:
        if isinstance(error, _UNFIT):
            return self._refused(str(error))
        if isinstance(error, TimeoutError):
            return self._unavailable(f"PostgreSQL at {self._place} did not answer in time")
        if reason := tls_refusal(error):
            return self._refused(f"PostgreSQL at {self._place}: {reason}")
        if isinstance(error, ConnectionError) and _NO_TLS in str(error):
            return self._refused(
                f"PostgreSQL at {self._place}: what answers there speaks no TLS: check the port and sslmode"
            )
        if isinstance(error, asyncpg.PostgresError):
            code = getattr(error, "sqlstate", None) or ""
            kind = self._unavailable if code.startswith(_PASSING) else self._refused
            return kind(f"PostgreSQL at {self._place} answered: {error} ({code})")
        if isinstance(error, asyncpg.DataError):
            return self._refused(f"PostgreSQL cannot keep a value: {error}")
        if isinstance(error, asyncpg.ClientConfigurationError):
            return self._refused(f"PostgreSQL at {self._place} cannot be connected to as configured: {error}")
        text = f"{str(error) or type(error).__name__}{next_step(error)}"
        return self._unavailable(f"PostgreSQL at {self._place} cannot be reached: {text}")


def _cause(error: Exception) -> BaseException | None:
    return error.__cause__ if isinstance(error, _UNFIT) else as_cause(error)
