"""The connection that receives notifications; that it is open shows that this process lives.

Rules: it is opened when there is something to hear, and made anew when it is cut; then every channel is listened to
again and each listener is woken, because it may have missed something. A cut connection is noticed at once,
one that hangs within half a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg

from celeriac.clock import set_within
from celeriac.retry import Backoff

_log = logging.getLogger("celeriac.postgres")

Wake: TypeAlias = Callable[[str], None]
"""Called with what was said, ``""`` where that is unknown."""

Opened: TypeAlias = Callable[[Any], Awaitable[None]]

_PULSE = 15.0
"""Seconds between questions to the server, by which a connection that hangs is noticed."""

DOWN = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a driver raises when there is no connection."""


class Listening:
    """The notifications that one process receives from one database.

    :param connect: opens a connection.
    :ivar on_open: called with each connection that is opened, before anything is heard.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._heard: dict[str, set[Wake]] = {}
        self._busy = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()
        self.on_open: Opened | None = None

    @property
    def connection(self) -> Any:
        """The connection, ``None`` where none was opened yet."""
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def hear(self, channel: str, wake: Wake) -> None:
        """Have ``wake`` called for what is said on the channel from now on."""
        async with self.use() as connection:
            known = channel in self._heard
            self._heard.setdefault(channel, set()).add(wake)
            if not known:
                try:
                    await connection.add_listener(channel, self._tell)
                except BaseException:
                    self._forget(channel, wake)
                    raise

    def hears(self, channel: str, wake: Wake) -> bool:
        """Whether ``wake`` would be called for what is said on the channel now."""
        return self.is_open and wake in self._heard.get(channel, ())

    async def ignore(self, channel: str, wake: Wake) -> None:
        """Call it no longer."""
        async with self._busy:
            if self._forget(channel, wake) and self.is_open:
                with suppress(*DOWN):
                    await self._connection.remove_listener(channel, self._tell)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """Have the connection alone; it is opened if there is none. Raises what the driver raises."""
        async with self._busy:
            if not self.is_open:
                await self._open()
            yield self._connection

    async def close(self) -> None:
        """Close the connection, and hear nothing any more. Idempotent."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._heard.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._was_cut)
            try:
                await connection.close(timeout=5.0)
            except DOWN:
                connection.terminate()

    def _tell(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        for wake in tuple(self._heard.get(channel, ())):
            wake(str(payload))

    def _forget(self, channel: str, wake: Wake) -> bool:
        """Return whether the channel has no listener any more."""
        wakes = self._heard.get(channel, set())
        wakes.discard(wake)
        if not wakes:
            self._heard.pop(channel, None)
        return not wakes

    # --- keeping it open

    async def _open(self) -> None:
        connection = await self._connect()
        try:
            if self.on_open is not None:
                await self.on_open(connection)
            for channel in tuple(self._heard):
                await connection.add_listener(channel, self._tell)
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(self._was_cut)
        self._cut.clear()
        self._connection = connection
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="celeriac-postgres-listening")

    def _was_cut(self, _connection: object) -> None:
        self._cut.set()

    async def _keep(self) -> None:
        """Ask for a sign of life now and then, and open the connection anew when it is cut."""
        while True:
            await set_within(self._cut, _PULSE)
            if not self._cut.is_set() and await self._answers():
                continue
            await self._open_anew()

    async def _answers(self) -> bool:
        connection = self._connection
        async with self._busy:
            try:
                await connection.execute("SELECT 1", timeout=_PULSE / 2)
            except DOWN:
                connection.terminate()
                return False
        return True

    async def _open_anew(self) -> None:
        backoff = Backoff(0.02, 2.0)
        while True:
            try:
                async with self.use():
                    pass
            except DOWN as error:
                _log.debug("PostgreSQL cannot be listened to, which is tried again: %s", error)
                await asyncio.sleep(backoff.pause())
            else:
                break
        for wakes in tuple(self._heard.values()):
            for wake in tuple(wakes):
                wake("")
