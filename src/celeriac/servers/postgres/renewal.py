"""Keeps the row of an owner from expiring, where no connection can hold a lock: behind a pooler.

Rules: a thread with an event loop and a connection of its own renews, so that a body that keeps the worker's event
loop busy does not cost the worker its messages. The thread ends with the process, and then the row expires.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from celeriac.clock import Clock, set_within
from celeriac.retry import Backoff
from celeriac.servers.postgres.connections import close
from celeriac.servers.postgres.listening import DOWN

_log = logging.getLogger("celeriac.broker.postgres")

_OFTEN = 4.0
"""Renewals within the time for which each of them holds."""


class Renewal:
    """Renews in a thread from its start to its stop.

    :param connect: opens a connection.
    :param statement: renews the row of the owner, and returns it unless it is gone.
    :param lease: seconds for which a renewal holds.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], statement: str, number: int, lease: float, clock: Clock
    ) -> None:
        self._connect = connect
        self._statement = statement
        self._number = number
        self._lease = lease
        self._clock = clock
        self._renewed_at = clock.monotonic()
        self._is_gone = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._work, name="celeriac-postgres-renewal", daemon=True)
        self._thread.start()

    @property
    def holds(self) -> bool:
        """Whether the row is surely there, and will be for a while."""
        return not self._is_gone and self._clock.monotonic() < self._renewed_at + self._lease / 2

    def renewed(self, at: float) -> None:
        """Note that the row was renewed elsewhere."""
        self._renewed_at = max(self._renewed_at, at)

    async def stop(self) -> None:
        """Renew no longer. Idempotent."""
        self._stopping.set()
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with suppress(RuntimeError):  # the thread has ended
                loop.call_soon_threadsafe(wake.set)
        await asyncio.to_thread(self._thread.join, 10.0)

    # --- in the thread

    def _work(self) -> None:
        asyncio.run(self._renew_on())

    async def _renew_on(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        backoff = Backoff(0.05, self._lease / _OFTEN)
        connection: Any = None
        while not self._stopping.is_set() and not self._is_gone:
            try:
                if connection is None or connection.is_closed():
                    connection = await self._connect()
                began = self._clock.monotonic()
                if await connection.fetchval(self._statement, self._number, self._lease) is None:
                    self._is_gone = True
                    break
                self.renewed(began)
                backoff.reset()
                pause = self._lease / _OFTEN
            except DOWN as error:
                _log.debug(
                    "the row of owner %s cannot be renewed, which is tried again: %s", self._number, error
                )
                pause = backoff.pause()
            await set_within(self._wake, pause)
        if connection is not None:
            await close(connection)
