"""Messages taken by a statement whose answer was lost: its connection was cut, or the waiting call was cancelled.

Rules: such a message bears the number of this process, so no other process takes it while this one lives, and no
subscription here has it. So for a while after a take without an answer, what bears our number and is not held is put
back as it was. A take of ours may not be under way meanwhile. The server may run a statement after its connection was
cut: hence the while.

Likewise the answer to a giving back may be lost. This process may then take the message again, and must not give it
back a second time while its body runs: so takes are numbered, and only the last one of a message can be settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from celeriac.clock import Clock
from celeriac.servers.queue_rows import Settlement

_SUSPICION = 60.0
"""Seconds after a take without an answer for which there may be strays."""

_BETWEEN = 0.5
"""Seconds between two looks for strays, at the least."""


class Strays:
    """What one process holds, and whether it may have taken more.

    :ivar turn: to be had while messages are taken, and while strays, or what is held, are put back.
    """

    def __init__(self, clock: Clock) -> None:
        self._held: dict[int, int] = {}
        self._takes = 0
        self.turn = asyncio.Lock()
        self._clock = clock
        self._until = self._next = float("-inf")

    @property
    def held(self) -> list[int]:
        """The ids of the messages that are held."""
        return list(self._held)

    def took(self, ids: Iterable[int]) -> int:
        """Note that these are held by a take, and return its number."""
        self._takes += 1
        self._held.update(dict.fromkeys(ids, self._takes))
        return self._takes

    def is_last(self, settlement: Settlement) -> bool:
        """Whether no later take has the message: then the earlier one gave it back."""
        return self._held.get(settlement.id, settlement.take) == settlement.take

    def let_go(self, settlements: Iterable[Settlement]) -> None:
        """Note that these are settled, or lost."""
        for one in settlements:
            if self._held.get(one.id) == one.take:
                del self._held[one.id]

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
