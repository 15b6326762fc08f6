"""Chooses the leader of an app's ticking processes, and keeps since when there has always been one.

Rules: a leader that dies is followed within ``LEASE`` seconds, or the app's lease where that is shorter. Each ticking
process adopts the moment since which, by what the others wrote, there was always one, and keeps it on the board while
it lives.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress

from celeriac.beat.places import Places
from celeriac.beat.slot_clock import SlotClock
from celeriac.errors import BackendError, BrokerError

logger = logging.getLogger("celeriac.beat")

LEASE = 5.0
"""Seconds within which another process ticks when the leader has died."""

_ALIVE = "since"


class Leading:
    """The part of one process in this.

    :param app: the app's name.
    :param lease: the app's lease, in seconds.
    """

    def __init__(self, places: Places, app: str, clock: SlotClock, lease: float) -> None:
        self._places = places
        self._name = f"beat.{app}"
        self._set = f"beat-alive.{app}"
        self._holder = uuid.uuid4().hex
        self._clock = clock
        lease = min(lease, LEASE)
        # Held for so long, and tried so often, that both together are a lease.
        self._hold, self._pause = lease * 0.58, lease * 0.4
        self._alive_for, self._alive_pause = 2 * lease, 0.8 * lease
        self._until = self._again = self._alive_again = 0.0
        self._began = clock.monotonic()
        self._told: float | None = None
        self._adopted = False

    @property
    def alive_since(self) -> float:
        """Since when there was always a process that ticks, as far as this one has read."""
        return self._clock.at(self._began) if self._told is None else self._told

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease now."""
        return self._clock.monotonic() < self._until

    @property
    def rest(self) -> float:
        """Seconds until the lease is to be renewed, or tried for."""
        return max(0.0, self._again - self._clock.monotonic())

    async def renew(self) -> None:
        """Try for the lease, or renew it, and give the sign of life, if it is time for that."""
        now = self._clock.monotonic()
        if now >= self._alive_again and not self._places.alone:
            await self._show_life()
            self._alive_again = now + self._alive_pause
            now = self._clock.monotonic()
        if now >= self._again:
            tenure = await self._places.leases.hold(self._name, self._holder, self._hold)
            self._clock.heard(tenure.now, now)
            self._until = now + self._hold if tenure else 0.0
            self._again = now + self._pause

    async def look_back(self) -> float:
        """Return since when there was always a process that ticks, as far as any process has written."""
        if self._places.alone:
            return self._clock.now()
        await self._adopt()
        return self.alive_since

    def hurry(self) -> None:
        """Try for the lease at once."""
        self._again = 0.0

    def lose(self) -> None:
        """Act as no leader until the lease is renewed: the server is away, and another may lead."""
        self._until = self._again = 0.0

    async def release(self) -> None:
        """Let another lead, at once."""
        self._until = 0.0
        with suppress(BrokerError, BackendError, TimeoutError):
            async with asyncio.timeout(LEASE):
                await self._places.leases.release(self._name, self._holder)

    async def _show_life(self) -> None:
        if not self._adopted:
            await self._adopt()
            self._adopted = True
            logger.debug("periodic tasks were always ticked since %.3f", self.alive_since)
        await self._places.board.sets.add(self._set, {_ALIVE: [repr(self.alive_since)]}, self._alive_for)

    async def _adopt(self) -> None:
        asked = self._clock.monotonic()
        contents = await self._places.board.sets.load(self._set, [_ALIVE])
        self._clock.heard(contents.now, asked)
        told = [float(text) for text in contents.sets[_ALIVE] if _is_moment(text)]
        self._told = min([self.alive_since, *told])


def _is_moment(text: str) -> bool:
    try:
        return 0 < float(text) < 1e11
    except ValueError:
        return False
