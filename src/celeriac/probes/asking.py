"""Asks a server again and again whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from celeriac.errors import CeleriacError


class Asking:
    """What one server said when it was asked.

    :param pause: seconds between two questions while it answers.
    :param again: seconds between two questions while it does not.
    :ivar answered: when it last answered, in seconds of ``time.monotonic``; ``None`` before.
    :ivar complaint: why it did not answer the latest question; empty if it did.
    """

    def __init__(self, pause: float, again: float) -> None:
        self._pause = pause
        self._again = again
        self.answered: float | None = None
        self.complaint = ""

    @property
    def answers(self) -> bool | None:
        """Whether it answered the latest question; ``None`` before the first one was dealt with."""
        if self.complaint:
            return False
        return None if self.answered is None else True

    async def run(self, ping: Callable[[], Awaitable[object]]) -> None:
        """Ask until cancelled."""
        while True:
            try:
                await ping()
            except CeleriacError as error:
                self.complaint = str(error) or type(error).__name__
                await asyncio.sleep(self._again)
            else:
                self.answered = monotonic()
                self.complaint = ""
                await asyncio.sleep(self._pause)
