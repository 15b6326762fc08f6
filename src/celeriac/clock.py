"""The one door through which time enters celeriac."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol


class Clock(Protocol):
    """Tells the time; tests bring their own."""

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so many seconds; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def seconds_ahead(told: float, asked: float, answered: float, known: float = 0.0) -> float:
    """Return by how many seconds at least another clock is ahead of ours; negative where it is behind.

    It is what was known where that may still be: 0 where the clocks may agree. The time that the answer took is no
    difference: a task would seem to have ended before it began.

    :param told: what the other clock told.
    :param asked: our time before that.
    :param answered: our time when the answer was read.
    :param known: the seconds that were found before, where this answer had to wait for something else.
    """
    return known + min(0.0, told - asked - known) + max(0.0, told - answered - known)
