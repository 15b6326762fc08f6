"""How a subscription takes messages from a SQLite file, and waits for more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from celeriac.servers.row_subscription import Taken
from celeriac.servers.sqlite.queue_file import QueueFile

_LONGEST_WAIT = 15.0
"""Seconds for which a wait believes that it will be woken; then it looks at the file."""


class SqliteTaker:
    """See ``celeriac.servers.row_subscription.Taker``."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._look_again: float | None = None

    async def take(self, queues: Sequence[str], now: int, ahead: int) -> Taken:
        taken, self._look_again = await self._file.take(queues, now, ahead)
        return taken

    async def wait(self, queues: Sequence[str], changed: asyncio.Event, taking: asyncio.Lock) -> None:
        pause = _LONGEST_WAIT
        if self._look_again is not None:
            pause = min(pause, max(0.001, self._look_again - self._file.clock.now()))
        alarm = asyncio.get_running_loop().call_later(pause, changed.set)
        try:
            await changed.wait()
        finally:
            alarm.cancel()

    def added(self) -> None:
        """Nothing: the next take looks at it."""
