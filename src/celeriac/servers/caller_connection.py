"""Executes statements on a connection that the caller brought, whichever library it is of.

Rules: the library is recognised by the module of the connection's class, so none is imported here. The caller's
transaction is neither begun nor ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from celeriac.contracts.transactions import Statement
from celeriac.errors import ConfigError

_Execute: TypeAlias = Callable[[Any, Statement], Any]

KNOWN = (
    "a SQLAlchemy Session or Connection, sync or async, a psycopg connection, sync or async, an asyncpg connection, "
    "Django's connection, or a sqlite3 connection"
)


class Caller:
    """A caller's connection.

    :raises ConfigError: it is none that is known.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._execute, self.is_async = _kind_of(connection)

    @classmethod
    def of(cls, connection: Any) -> Caller | None:
        """Return the caller of a connection, ``None`` for ``None``."""
        return None if connection is None else cls(connection)

    async def execute(self, statements: Sequence[Statement]) -> None:
        """Execute the statements, in order."""
        for statement in statements:
            done = self._execute(self.connection, statement)
            if self.is_async:
                await done

    def execute_here(self, statements: Sequence[Statement]) -> None:
        """Execute the statements, in order, without an event loop. Raises ``ConfigError`` if that cannot be."""
        if self.is_async:
            raise ConfigError(
                f"{type(self.connection).__name__} is a connection to be awaited: write await ...send(...), which runs "
                "in its event loop"
            )
        for statement in statements:
            self._execute(self.connection, statement)


def _kind_of(connection: Any) -> tuple[_Execute, bool]:
    for kind in type(connection).__mro__:
        module = kind.__module__
        for prefix, execute, is_async in _KINDS:
            if module == prefix or module.startswith(f"{prefix}."):
                return execute, is_async or kind.__name__.startswith("Async")
    raise ConfigError(f"{connection!r:.200} is no connection that is known: give {KNOWN}")


def _by_name(connection: Any, statement: Statement) -> Any:
    from sqlalchemy import text

    names = [f":p{number}" for number in range(len(statement.values))]
    # A colon of the statement's own, as in a cast, is none of a name.
    sql = statement.text.replace(":", r"\:").format(*names)
    return connection.execute(text(sql), {f"p{n}": value for n, value in enumerate(statement.values)})


def _by_percent(connection: Any, statement: Statement) -> Any:
    return connection.execute(_percent(statement), statement.values)


def _by_cursor(connection: Any, statement: Statement) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_percent(statement), statement.values)


def _by_number(connection: Any, statement: Statement) -> Any:
    names = [f"${number}" for number in range(1, len(statement.values) + 1)]
    return connection.execute(statement.text.format(*names), *statement.values)


def _by_mark(connection: Any, statement: Statement) -> Any:
    return connection.execute(statement.text.format(*["?"] * len(statement.values)), statement.values)


def _percent(statement: Statement) -> str:
    return statement.text.replace("%", "%%").format(*["%s"] * len(statement.values))


_KINDS: Sequence[tuple[str, _Execute, bool]] = (
    ("sqlalchemy.ext.asyncio", _by_name, True),
    ("sqlalchemy", _by_name, False),
    ("psycopg", _by_percent, False),
    ("psycopg2", _by_cursor, False),
    ("asyncpg", _by_number, True),
    ("django", _by_cursor, False),
    ("sqlite3", _by_mark, False),
)
"""For each library the module of its connections, and how one executes a statement."""
