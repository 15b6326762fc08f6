"""Messages that were reserved before they can start, so that a free slot does not wait for a round trip.

Rules: no more are held than are dealt with in the time of ``Pace``, and never more than ``most``; they are handed out
in the order in which they came; what is not handed out within ``LONGEST`` seconds goes back to the head of its queue.
What may have gone back is handed out no more, even where the answer is missing: another worker may run it by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from celeriac.contracts.broker import Delivery
from celeriac.errors import BrokerError

_log = logging.getLogger("celeriac.broker")

AHEAD = 0.02
"""Seconds from the ack that makes room for a message to its arrival, on a busy machine."""

LONGEST = 0.5
"""Seconds for which a message is held that cannot start."""

_STRETCH = LONGEST * 0.4
"""Seconds from look to look: what was there at one and is still there at the next goes back, with time for the trip."""

_FEW = 8
"""Messages for whose sake no fetch is begun in the background: it would cost more than it saves."""


class Pace:
    """Measures in stretches of some seconds; to be asked again and again.

    :param loop: its clock is read.
    :param stretch: those seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stretch: float = AHEAD) -> None:
        self._stretch = stretch
        self._now = loop.time
        self._since = self._now()
        self._before = 0
        self._latest = 0

    def at(self, total: int) -> int:
        """Return how many were dealt with in the latest whole stretch.

        :param total: how many were dealt with so far.
        """
        seconds = self._now() - self._since
        if seconds >= self._stretch:
            self._latest = int((total - self._before) * self._stretch / seconds)
            self._since += seconds
            self._before = total
        return self._latest


class Reserve:
    """What one subscription holds besides what it handed out.

    :param fetch: reserves messages and returns them, none where there are none, without waiting for any. It gets how
        many can start now, and how many more may be held, of which it takes fewer where they are large.
    :param give_back: puts messages that never started back at the head of their queues, unmarked; raises
        ``BrokerError`` when that could not be done, or is not known to have been done. It may be called again then.
    :ivar most: how many may be held.
    :ivar are_more: whether the last fetch brought all that it asked for.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], Awaitable[Sequence[Delivery]]],
        give_back: Callable[[Sequence[Delivery]], Awaitable[None]],
    ) -> None:
        self.most = 0
        self._fetch = fetch
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(self._loop)
        self._held: deque[Delivery] = deque()
        self._leaving: list[Delivery] = []
        self._handed_out = 0
        self.are_more = False
        self._fetching: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._look: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._old = 0

    def __len__(self) -> int:
        return len(self._held)

    def held(self) -> Sequence[Delivery]:
        """Return what is held now."""
        return tuple(self._held)

    async def take(self, limit: int) -> list[Delivery]:
        """Return up to ``limit`` messages: what is held, else what a fetch finds now, which may be none."""
        if not self._held:
            if self._fetching is not None:
                fetching, self._fetching = self._fetching, None
                await fetching
            if not self._held:
                await self._fetch_more(limit, self._wanted())
        taken = self._pick(limit)
        if not self.most:
            if self._held:  # it was fetched when more were wanted
                await self.let_go()
        elif self._held or self.are_more:
            self._watch()
            self._fetch_in_background()
        return taken

    async def let_go(self, wanted: Callable[[Delivery], bool] = lambda _: True) -> None:
        """Give back what is held, once a fetch under way has come.

        :param wanted: tells which of them.
        """
        if self._fetching is not None:
            await asyncio.wait([self._fetching])
        async with self._busy:
            self._leaving += filter(wanted, self._held)
            self._held = deque(delivery for delivery in self._held if not wanted(delivery))
            if self._leaving:
                await self._give_back(self._leaving)
                self._leaving.clear()

    async def close(self) -> None:
        """Give back what is held, and hold nothing any more.

        What cannot be given back comes back when its lease ends.
        """
        self.most = 0
        try:
            await self.let_go()
        except BrokerError as error:
            _log.warning("reserved messages could not be given back; their leases will end: %s", error)
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._fetching is not None and not self._fetching.cancelled():
            self._fetching.exception()  # nobody misses what was not fetched

    def _wanted(self) -> int:
        """Return how many are to be held."""
        return min(self._pace.at(self._handed_out), self.most)

    def _pick(self, limit: int) -> list[Delivery]:
        held = self._held
        if len(held) <= limit:
            taken = list(held)
            held.clear()
        else:
            taken = [held.popleft() for _ in range(limit)]
        self._handed_out += len(taken)
        return taken

    async def _fetch_more(self, now: int, ahead: int) -> None:
        async with self._busy:
            found = await self._fetch(now, ahead)
            self._held.extend(found)
            self.are_more = len(found) >= now + ahead

    def _fetch_in_background(self) -> None:
        """Begin to fetch the next messages while these run, once half of them are gone."""
        fetching = self._fetching
        if fetching is not None and (not fetching.done() or fetching.exception()):
            return  # `take` raises it once nothing is held
        wanted = self._wanted()
        if self.are_more and wanted >= _FEW and len(self._held) * 2 <= wanted:
            self._fetching = self._loop.create_task(self._fetch_more(0, wanted - len(self._held)))

    # --- what is held too long

    def _watch(self) -> None:
        if self._look is None:
            self._old = self._handed_out + len(self._held)
            self._look = self._loop.call_later(_STRETCH, self._look_for_surplus)

    def _look_for_surplus(self) -> None:
        """Give everything back where something is still held that was held one stretch ago."""
        self._look = None
        if self._handed_out < self._old or self._leaving:
            self._returning = self._loop.create_task(self._return_surplus())
        elif self._held or self._fetching is not None:
            self._watch()

    async def _return_surplus(self) -> None:
        try:
            await self.let_go()
        except BrokerError as error:
            _log.debug("reserved messages could not be given back, which is tried again: %s", error)
        if self._held or self._leaving:
            self._watch()
