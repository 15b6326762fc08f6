"""Tasks that must not run any more, in the tables of a SQLite file.

Rules: a revocation and the new revision are one transaction; so are the taking of messages and the reading of the
revision. What has expired is dropped by whoever adds next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from celeriac.broker import Revoked
from celeriac.clock import Clock
from celeriac.servers.sqlite.link import SqliteLink
from celeriac.servers.sqlite.messages import as_json
from celeriac.servers.sqlite.reading import scalar

_DROP_EXPIRED = "DELETE FROM celeriac_revoked WHERE expires <= :now"
_ADD = """
    INSERT INTO celeriac_revoked (kind, id, expires, terminate)
    SELECT :kind, value, :expires, :terminate FROM json_each(:ids) WHERE true
    ON CONFLICT (kind, id) DO UPDATE SET
        expires = max(expires, excluded.expires), terminate = max(terminate, excluded.terminate)"""
_LATEST_DUE = "SELECT max(due_at) FROM celeriac_message WHERE due_at < 9e999"
# What is no number of ours counts as none.
_ADVANCE = """
    INSERT INTO celeriac_revision (name, number) VALUES ('revoked', 1) ON CONFLICT (name) DO UPDATE SET number = 1 +
        CASE WHEN typeof(number) = 'integer' AND number BETWEEN 0 AND 9007199254740991 THEN number ELSE 0 END"""
_REVISION = """
    SELECT CASE WHEN typeof(number) = 'integer' AND number BETWEEN 0 AND 9007199254740991 THEN number ELSE 0 END
    FROM celeriac_revision WHERE name = 'revoked'"""
_LOAD = "SELECT kind, CAST(id AS TEXT), terminate IS 1 FROM celeriac_revoked WHERE expires > :now"


def read_revision(connection: sqlite3.Connection) -> int:
    """Return the number of the last change."""
    return int(scalar(connection, _REVISION) or 0)


class SqliteRevocations:
    """What was revoked; see ``celeriac.broker.Revocations``."""

    def __init__(self, link: SqliteLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def add(
        self, ids: Sequence[str], *, roots: Sequence[str] = (), terminate: bool = False, keep: float = 86400.0
    ) -> None:
        now = self._clock.now()

        def add(connection: sqlite3.Connection) -> None:
            connection.execute(_DROP_EXPIRED, {"now": now})
            expires = max(now, scalar(connection, _LATEST_DUE) or now) + keep
            for kind, names in (("id", ids), ("root", roots)):
                facts = {"kind": kind, "ids": as_json(list(names))}
                connection.execute(_ADD, facts | {"expires": expires, "terminate": terminate})
            connection.execute(_ADVANCE)

        await self._link.write(add)

    async def revision(self) -> int:
        return await self._link.read(read_revision)

    async def load(self) -> Revoked:
        return await self._link.write(self._load)

    def _load(self, connection: sqlite3.Connection) -> Revoked:
        rows = connection.execute(_LOAD, {"now": self._clock.now()}).fetchall()
        return Revoked(
            read_revision(connection),
            ids=frozenset(id for kind, id, _ in rows if kind == "id"),
            roots=frozenset(id for kind, id, _ in rows if kind == "root"),
            terminate=frozenset(id for _, id, terminate in rows if terminate),
        )
