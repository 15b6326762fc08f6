"""What goes wrong, at random by a seed."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.chaos.fleet import Fleet
from tests.chaos.places import Place

SHORTEST, LONGEST = 0.3, 1.5
"""Seconds from the end of one mishap to the next."""

HANG = 1.0
"""Seconds that the server does not answer; less than a lease."""

SUSPENDED = 4.0
"""Seconds that a worker is stopped by SIGSTOP; more than it may be away."""

AWAY = 0.5
"""Seconds from the server's death to its return."""


class Mischief:
    """Makes trouble until it is cancelled.

    :param restarts: how often the server is killed and started again, at the most.
    """

    def __init__(self, seed: int, place: Place, fleet: Fleet, restarts: int) -> None:
        self._dice = random.Random(seed)
        self._place = place
        self._fleet = fleet
        self._restarts = restarts
        self.done: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []
        """From when until when the server was down. That it hangs is no excuse: no lease ends by it."""
        self.cuts: list[tuple[float, float]] = []
        """From when until when connections were cut."""

    async def make(self, seconds: float) -> None:
        """One mishap after the other, for so long; returns when the last is over."""
        until = time.monotonic() + seconds
        deck = self._deck()
        while time.monotonic() < until:
            await asyncio.sleep(self._dice.uniform(SHORTEST, LONGEST))
            name, mishap = deck.pop(self._dice.randrange(len(deck)))
            await mishap()
            self.done[name] += 1
            deck = deck or self._deck()

    def _deck(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        # A deck that is used up before it is dealt anew: a short run has a little of everything.
        deck: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("worker killed", lambda: self._fleet.kill_one(self._dice)),
            ("worker killed", lambda: self._fleet.kill_one(self._dice)),
            ("worker stopped", lambda: self._fleet.stop_one(self._dice)),
            ("connections cut", self._cut),
            ("connections cut", self._cut),
            ("server hung", self._hang),
        ]
        if not self._place.forgets:
            # A worker that is stopped for longer than it may be away keeps what it holds: it is connected.
            deck.append(("worker suspended", self._suspend))
        if self._restarts:
            self._restarts -= 1
            deck.append(("server killed", self._restart))
        return deck

    async def _cut(self) -> None:
        began = time.monotonic()
        await asyncio.to_thread(self._place.cut, self._dice)
        self.cuts.append((began, time.monotonic()))

    async def _suspend(self) -> None:
        # One that is cut off and cannot connect anew for so long is taken for dead, as it says.
        await asyncio.to_thread(self._place.wait_for_signs_of_life)
        await self._fleet.suspend_one(self._dice, SUSPENDED)

    async def _hang(self) -> None:
        await asyncio.to_thread(self._place.hang, HANG)

    async def _restart(self) -> None:
        # Celery on Redis loses what it was popping when its connection breaks.
        await self._fleet.stop_celery()
        began = time.monotonic()
        await asyncio.to_thread(self._place.kill)
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(self._place.start)
        self.outages.append((began, time.monotonic()))
        await self._fleet.start_celery()
