"""How a subscription takes messages from a PostgreSQL database, and sleeps until there are more.

Rules: a take begins at the floors, and now and then, as after every sleep, at the beginning, for what was given back or
committed late. While an old transaction keeps what is dead from being vacuumed, a take from the beginning walks over
all of it, so the longer that takes, the rarer it is. Who counts as asleep and left nothing, from the beginning, need
neither take nor look once more before it waits: whoever sends from then on tells it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from celeriac.clock import set_within
from celeriac.servers.postgres.queues import Place, Queues
from celeriac.servers.postgres.sleeping import LOOKS, POLLS, PULSE, SLEEP
from celeriac.servers.row_subscription import Taken
from celeriac.wire.names import HIGHEST_PRIORITY

_FROM_THE_BEGINNING = 0.25
"""Seconds between takes that begin at the beginning, and looks for what came due, while there is enough to do."""

_LONG = 0.02
"""Seconds that a take from the beginning may last and still be done whenever a message was given back."""

_SHORT = 0.005
"""Seconds that one which found nothing may have lasted, so that a take begins so whenever there was less than wanted:
it saves a look where nothing is found again.
"""

_RARELY = 20
"""How many times as long as a take from the beginning lasted are the takes after it that begin at the floors."""


class PostgresTaker:
    """See ``celeriac.servers.row_subscription.Taker``."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._floors: dict[tuple[str, int], int] = {}
        self._begun_at = float("-inf")
        self._lasted = 0.0
        self._lasted_empty = 0.0
        self._drained = False
        self._saw_all = False
        self._looked_at = float("-inf")
        self._returns = queues.returns
        self._rings = queues.waking.rings
        self._asleep_until = float("-inf")
        self._look_at = float("-inf")
        self._looks: deque[float] = deque()

    async def take(self, queues: Sequence[str], now: int, ahead: int) -> Taken:
        clock = self._queues.clock
        asked = clock.monotonic()
        if self._has_nothing_new(asked):
            return Taken(drained=True)
        if asked >= self._looked_at + _FROM_THE_BEGINNING:
            self._looked_at = asked
            if ahead or not now:  # a subscription that sleeps looks by itself
                await self._queues.look(())
        self._saw_all = False  # nor is it known, where the take has no answer
        self._rings = self._queues.waking.rings
        if self._is_time(asked):
            self._begun_at = clock.monotonic()
            self._returns = self._queues.returns
            self._floors.clear()
            taken, floors = await self._queues.take(self._places(queues), now, ahead)
            self._lasted = clock.monotonic() - self._begun_at
            if not taken.messages or self._lasted < self._lasted_empty:  # else it waited for a commit, too
                self._lasted_empty = self._lasted
            self._floors.update(floors)
            self._note(taken, now + ahead, saw_all=True)
            return taken
        taken, floors = await self._queues.take(self._places(queues), now, ahead)
        self._note(taken, now + ahead, saw_all=False)
        if not taken.messages:  # what lies before the floors is found by the look that follows
            self._floors.clear()
        self._floors.update(floors)
        return taken

    def _note(self, taken: Taken, wanted: int, *, saw_all: bool) -> None:
        self._drained = len(taken.messages) < wanted
        self._saw_all = saw_all and taken.drained

    def _has_nothing_new(self, now: float) -> bool:
        """Whether the last take left nothing, and any sender since would have told: this one counts as asleep."""
        told = now < self._asleep_until and not self._queues.waking.polls
        return self._saw_all and told and self._rings == self._queues.waking.rings

    def _is_time(self, now: float) -> bool:
        """Whether to begin at the beginning."""
        if self._returns != self._queues.returns and self._lasted < _LONG:
            return True
        if self._drained and self._lasted_empty < _SHORT:
            return True
        return now >= self._begun_at + max(_FROM_THE_BEGINNING, _RARELY * self._lasted)

    def added(self) -> None:
        """Fall asleep anew, on this queue too."""
        self._asleep_until = float("-inf")

    def _places(self, queues: Sequence[str]) -> list[Place]:
        """Return where to look: by priority over all the queues, and among equals in turn."""
        return [
            (queue, priority, self._floors.get((queue, priority), 0))
            for priority in range(HIGHEST_PRIORITY + 1)
            for queue in queues
        ]

    # --- sleeping

    async def wait(self, queues: Sequence[str], changed: asyncio.Event, taking: asyncio.Lock) -> None:
        self._floors.clear()
        clock = self._queues.clock
        if self._queues.waking.polls:
            self._looks = deque(clock.monotonic() + seconds for seconds in POLLS)
        if not self._saw_all or self._queues.waking.polls:
            self._look_at = clock.monotonic()
        while not changed.is_set():
            now = clock.monotonic()
            if self._look_at > now and self._asleep_until > now:
                await set_within(changed, max(0.001, self._look_at - now))
                continue
            sleeps_on = now + PULSE >= self._asleep_until
            if now >= self._asleep_until:
                await self._queues.waking.fall_asleep(queues)
                sleeps_on = False
                if not self._queues.waking.polls:
                    self._looks = deque(now + seconds for seconds in LOOKS)
                self._asleep_until = now + SLEEP
            async with taking:
                if changed.is_set():
                    return
                look = await self._queues.look(queues, sleeps_on=sleeps_on)
            if sleeps_on:
                self._asleep_until = now + SLEEP
            self._look_at = self._next_look(look.again)
            if look.found:
                self._saw_all = False
                return

    def _next_look(self, again: float | None) -> float:
        """Return when to look next, as monotonic seconds."""
        now = self._queues.clock.monotonic()
        while self._looks and self._looks[0] <= now:
            self._looks.popleft()
        pause = min(PULSE, self._looks[0] - now if self._looks else PULSE, PULSE if again is None else again)
        return now + max(0.001, pause)
