"""Housekeeping of the tables of messages: vacuuming between the rounds of autovacuum, rebuilding, and sweeping.

Rules: one process at a time in the whole database does each kind; a row says when it was done last.
Autovacuum comes once a minute, in which 200,000 messages leave half a gigabyte. A role that may not vacuum leaves it
to autovacuum.
"""

from __future__ import annotations

import asyncio
import logging

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.link import PostgresLink

_log = logging.getLogger("celeriac.broker.postgres")

_SETTLED = 50_000
"""Settlements of this process after which it asks for a vacuum."""

_BETWEEN = 10.0
"""Seconds between two vacuums, at the least."""

_BETWEEN_SWEEPS = 30.0
"""Seconds between two sweeps, at the least."""

_RARELY = 10
"""How many times as long as a vacuum lasted is the pause after it."""

_CLAIM = f"""
    INSERT INTO celeriac_round AS round (name, at) VALUES ($1, {NOW})
    ON CONFLICT (name) DO UPDATE SET at = excluded.at
    WHERE round.at <= {NOW} - $2 OR round.at > {NOW} + $2 RETURNING 1"""
_MAY_VACUUM = """
    SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'celeriac_message'::regclass"""
_VACUUM = "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON) {schema}.celeriac_message"
_REBUILD = "REINDEX INDEX CONCURRENTLY {schema}.celeriac_message_waiting"
_DAY = 86400.0
_LARGE = 64 * 1024 * 1024
"""Bytes that the index of what waits may have, however few messages there are."""

_BLOAT = 4 * 64
"""Bytes that it may have for each message that waits: four times what one needs."""

_SIZE = """
    SELECT pg_relation_size(oid) AS size, greatest(reltuples, 0) AS live FROM pg_class
    WHERE oid = 'celeriac_message_waiting'::regclass"""
_AHEAD = 3600.0
"""Seconds ahead of which none of ours ends."""

_SWEEP = f"""
    WITH claim AS ({_CLAIM}),
    {
    ", ".join(
        f'''{table}_swept AS (
        DELETE FROM {table} WHERE EXISTS (SELECT FROM claim)
            AND ({end} < {NOW} - {kept} OR {end} > {NOW} + {_AHEAD}))'''
        for table, end, kept in (
            ("celeriac_sleeper", "until", 60),
            ("celeriac_binding", "expires", 0),
            ("celeriac_broadcast", "expires", 0),
            ("celeriac_reply", "expires", 0),
        )
    )
}
    SELECT EXISTS (SELECT FROM claim)"""


class Housekeeping:
    """What one process does for the tables that all share."""

    def __init__(self, link: PostgresLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._settled = 0
        self._next_sweep = 0.0
        self._next_vacuum = 0.0
        self._may_vacuum = True
        self._may_sweep = True
        self._running: asyncio.Task[None] | None = None

    def settled(self, count: int) -> None:
        """Note that so many messages are gone, or were written again; vacuum after a great many."""
        self._settled += count
        if self._settled < _SETTLED or not self._may_vacuum or self._running is not None:
            return
        now = self._clock.monotonic()
        if now >= self._next_vacuum:
            self._next_vacuum = now + _BETWEEN
            self._settled = 0
            self._running = asyncio.create_task(self._vacuum(), name="celeriac-postgres-vacuum")

    async def sweeps(self) -> bool:
        """Sweep, if it is time and no other process does; return whether this process is the one that sweeps.

        A role that may not sweep is one, too: what other sweeping there is must be done by somebody.
        """
        now = self._clock.monotonic()
        if now < self._next_sweep:
            return False
        self._next_sweep = now + _BETWEEN_SWEEPS
        if not self._may_sweep:
            return True
        try:
            return bool(await self._link.value(_SWEEP, "sweep", _BETWEEN_SWEEPS))
        except BrokerUnavailable:
            raise
        except BrokerError as error:  # a worker needs no right to this
            self._may_sweep = False
            _log.info("this role may not delete rows that are over, which is left to others: %s", error)
            return True

    async def rebuild_index(self, larger_than: int = _LARGE) -> bool:
        """Rebuild the index of what waits, at most once a day, if it is mostly empty; return whether that was done.

        :param larger_than: bytes below which it stays as it is.
        """
        ((size, live),) = await self._link.fetch(_SIZE)
        if size <= larger_than or size <= _BLOAT * live:
            return False
        if not await self._link.value(_CLAIM, "rebuild", _DAY):
            return False
        await self._aside(_REBUILD)
        return True

    async def close(self) -> None:
        """End what is under way."""
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def _aside(self, statement: str) -> None:
        await self._link.aside(statement.format(schema=(await self._link.facts()).quoted_schema))

    async def _vacuum(self) -> None:
        began = self._clock.monotonic()
        try:
            if not await self._link.value(_MAY_VACUUM):
                self._may_vacuum = False
                _log.info("this role may not vacuum celeriac_message, which is left to autovacuum")
            elif await self._link.value(_CLAIM, "vacuum", _BETWEEN):
                await self._aside(_VACUUM)
                await self.rebuild_index()
        except BrokerError as error:
            _log.debug("celeriac_message could not be vacuumed, which is tried again: %s", error)
        finally:
            # While an old transaction keeps what is dead, a vacuum reads all of it, and frees nothing.
            now = self._clock.monotonic()
            self._next_vacuum = max(self._next_vacuum, now + _RARELY * (now - began))
            self._running = None
