"""Brings the tables of a database up to date.

Rules: one process at a time does it, under an advisory lock; a part that is up to date is only looked at. A role that
may not make tables can use those that another role made with ``celeriac migrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from celeriac.servers.postgres.tables import STEPS, VERSIONS

_LOCK = 0x63656C65726961
"""The number of the lock: any will do that no one else uses."""

_KNOWN = "SELECT to_regclass('celeriac_schema') IS NOT NULL"
_VERSION = "SELECT part, version FROM celeriac_schema"
_NOTE = """
    INSERT INTO celeriac_schema (part, version) VALUES ($1, $2)
    ON CONFLICT (part) DO UPDATE SET version = excluded.version"""


class TablesMissing(Exception):
    """The tables are not there, or old, and this role may not make them; the text says what to do."""


async def versions(connection: Any) -> Mapping[str, int]:
    """Return the version of each part of the tables that is there."""
    if not await connection.fetchval(_KNOWN):
        return {}
    return {row["part"]: row["version"] for row in await connection.fetch(_VERSION)}


async def prepare(connection: Any, part: str) -> list[str]:
    """See to it that a part of the tables is up to date; return what was done.

    Raises ``TablesMissing`` where this role may not do that.
    """
    wanted = len(STEPS[part])
    if (await versions(connection)).get(part, 0) >= wanted:
        return []
    try:
        async with connection.transaction():
            return await _migrate(connection, part)
    except asyncpg.InsufficientPrivilegeError as error:
        role, schema = await connection.fetchrow("SELECT current_user, current_schema()")
        raise TablesMissing(
            f"the tables for {part} are not there, or old, and role {role!r} may not make them in schema {schema!r} "
            f"({error}): have a role that may do so run `celeriac migrate`, or the SQL that `celeriac migrate --print` "
            "shows"
        ) from error


async def _migrate(connection: Any, part: str) -> list[str]:
    await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
    if not await connection.fetchval(_KNOWN):
        await connection.execute(VERSIONS)
    known = (await versions(connection)).get(part, 0)
    done: list[str] = []
    for number, step in enumerate(STEPS[part], 1):
        if number > known:
            await connection.execute(step)
            done.append(f"{part} {number}")
    if done:
        await connection.execute(_NOTE, part, len(STEPS[part]))
    return done
