"""The owners of taken messages: gives this process its number, and finds out which owners have died.

Rules: a process that holds messages keeps an advisory lock with its number on the connection that it listens on. The
server frees the lock when the connection ends, so when the process ends, in whatever way, and not while it is merely
busy or suspended. A lock that is free may be one that is about to be taken again, on a new connection, so its owner
is dead only if the lock is free at every look for a grace. After a start of the server every owner gets time to take
locks again. Behind a pooler no connection is ours for long: there the row of an owner expires, unless it is renewed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from celeriac.clock import Clock
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.renewal import Renewal

GRACE = 2.0
"""Seconds for which the lock of an owner that lives may be free: it connects anew."""

_START = 30.0
"""Seconds after a start of the server, at the most, in which no owner is taken for dead."""

_GAP = 3.0
"""Seconds between two looks that make the next one a first look: this process itself was suspended."""

_NEXT = "SELECT nextval('celeriac_owner_number')::integer"
_LOCK = "SELECT pg_advisory_lock($1, $2)"
_UNLOCK = "SELECT pg_advisory_unlock($1, $2)"
_IS_KNOWN = "SELECT EXISTS (SELECT FROM celeriac_owner WHERE id = $1)"
_ENTER = "INSERT INTO celeriac_owner (id) VALUES ($1)"
_LEAVE = "DELETE FROM celeriac_owner WHERE id = $1"


_ENTER_FOR = f"""
    INSERT INTO celeriac_owner (id, expires) VALUES (nextval('celeriac_owner_number')::integer, {NOW} + $1)
    RETURNING id"""
_RENEW = f"UPDATE {{schema}}celeriac_owner SET expires = {NOW} + $2 WHERE id = $1 RETURNING id"


class Owners:
    """The owners of one schema's messages, as one of them sees the others.

    :param lease: seconds after which the messages of a process that died are others' at the latest.
    """

    def __init__(self, link: PostgresLink, clock: Clock, lease: float) -> None:
        self._link = link
        self._clock = clock
        self._lease = lease
        self._grace = min(GRACE, lease)
        self._start = min(_START, lease)
        self._number: int | None = None
        self._locked_on: Any = None
        self._renewal: Renewal | None = None
        self._entering = asyncio.Lock()
        self._suspects: dict[int, float] = {}
        self._looked_at = float("-inf")
        link.connections.listening.on_open = self._lock_again

    @property
    def own(self) -> int | None:
        """The number that our messages bear, ``None`` where we hold none."""
        return self._number

    async def hold(self) -> int:
        """Return the number for what is taken now, once its lock is held, or its row is sure to hold for a while."""
        if not self._link.connections.has_sessions:
            return await self._hold_row()
        listening = self._link.connections.listening
        if self._number is None or not listening.is_open or self._locked_on is not listening.connection:
            async with self._link.translated():
                kind = await self._class()
                async with listening.use() as connection:
                    if self._locked_on is not connection:
                        await self._lock(connection, kind)
        assert self._number is not None
        return self._number

    async def let_go(self) -> None:
        """Give up the lock, once nothing bears our number any more. Idempotent."""
        number, self._number = self._number, None
        locked_on, self._locked_on = self._locked_on, None
        if number is None:
            return
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            await renewal.stop()
        await self._link.fetch(_LEAVE, number)
        listening = self._link.connections.listening
        if locked_on is listening.connection and listening.is_open:
            async with self._link.translated():
                kind = await self._class()
                async with listening.use() as connection:
                    await connection.execute(_UNLOCK, kind, number)

    async def lock_class(self) -> int:
        """Return the first number of the owners' locks."""
        return await self._class()

    def dead_among(self, unlocked: Collection[int], expired: Collection[int], up: float) -> list[int]:
        """Return the owners that have died.

        :param unlocked: the owners whose locks are free now.
        :param expired: the owners whose rows have expired.
        :param up: seconds since the server started.
        """
        now = self._clock.monotonic()
        if now - self._looked_at > _GAP or up < self._start:
            self._suspects = {}
        self._looked_at = now
        self._suspects = {number: self._suspects.get(number, now) for number in unlocked}
        dead = [number for number, since in self._suspects.items() if now >= since + self._grace]
        return dead if up < self._start else [*dead, *expired]

    def next_look(self) -> float | None:
        """Return in how many seconds a suspect may be known to be dead, ``None`` where there is none."""
        if not self._suspects:
            return None
        return max(0.01, min(self._suspects.values()) + self._grace - self._clock.monotonic())

    @property
    def suspects(self) -> Mapping[int, float]:
        """The owners whose locks are free, and since when."""
        return self._suspects

    async def _hold_row(self) -> int:
        """Return our number once its row was renewed lately; a new one if we were taken for dead."""
        async with self._entering:
            return await self._enter()

    async def _enter(self) -> int:
        if self._renewal is not None and self._renewal.holds and self._number is not None:
            return self._number
        if self._renewal is not None and self._number is not None:
            now = self._clock.monotonic()
            if await self._link.value(_RENEW.format(schema=""), self._number, self._lease) is not None:
                self._renewal.renewed(now)
                return self._number
            await self._renewal.stop()
        self._number = int(await self._link.value(_ENTER_FOR, self._lease))
        connections = self._link.connections
        schema = (await connections.facts()).quoted_schema
        self._renewal = Renewal(
            connections.connect_aside,
            _RENEW.format(schema=f"{schema}."),
            self._number,
            self._lease,
            self._clock,
        )
        return self._number

    async def _lock_again(self, connection: Any) -> None:
        if self._number is not None:
            await self._lock(connection, await self._class())

    async def _lock(self, connection: Any, kind: int) -> None:
        """Lock our number on this connection; take a new one if we have none, or were taken for dead."""
        if self._number is not None:
            await connection.execute(_LOCK, kind, self._number)
            if not await connection.fetchval(_IS_KNOWN, self._number):
                await connection.execute(_UNLOCK, kind, self._number)
                self._number = None
        if self._number is None:
            number = await connection.fetchval(_NEXT)
            await connection.execute(_LOCK, kind, number)
            await connection.execute(_ENTER, number)
            self._number = number
        self._locked_on = connection

    async def _class(self) -> int:
        connections = self._link.connections
        return connections.lock_class((await connections.facts()).schema)
