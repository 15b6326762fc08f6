"""Messages taken by a statement whose answer was lost: its connection was cut, or the waiting call was cancelled.

Rules: such a message bears the number of this process, so no other process takes it while this one lives, and no
subscription here has it. So for a while after a take without an answer, what bears our number and is not held is put
back as it was. A take of ours may not be under way meanwhile. The server may run a statement after its connection was
cut: hence the while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from celeriac.clock import Clock

_SUSPICION = 60.0
"""Seconds after a take without an answer for which there may be strays."""

_BETWEEN = 0.5
"""Seconds between two looks for strays, at the least."""


class Strays:
    """What one process holds, and whether it may have taken more.

    :ivar turn: to be had while messages are taken, and while strays are put back.
    """

    def __init__(self, clock: Clock) -> None:
        self._held: dict[int, int] = {}
        self.turn = asyncio.Lock()
        self._clock = clock
        self._until = self._next = float("-inf")

    @property
    def held(self) -> list[int]:
        """The ids of the messages that are held."""
        return list(self._held)

    def took(self, ids: Iterable[int]) -> None:
        """Note that these are held, once more where one that was given back is taken before that is answered."""
        held = self._held
        for one in ids:
            held[one] = held.get(one, 0) + 1

    def let_go(self, ids: Iterable[int]) -> None:
        """Note that these are settled, or lost."""
        held = self._held
        for one in ids:
            times = held.pop(one, 0)
            if times > 1:
                held[one] = times - 1

    def clear(self) -> None:
        """Note that nothing is held any more."""
        self._held.clear()

    def suspect(self) -> None:
        """Note that a take had no answer."""
        self._next = self._clock.monotonic()
        self._until = self._next + _SUSPICION

    def are_to_be_looked_for(self) -> bool:
        """Whether it is time to look; the next time is later."""
        now = self._clock.monotonic()
        if not self._next <= now < self._until:
            return False
        self._next = now + _BETWEEN
        return True
