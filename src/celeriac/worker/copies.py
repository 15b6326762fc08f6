"""Remembers which copies of messages were taken, for brokers that cannot drop repeats (``Broker.may_repeat``).

Rules: each taken copy is a mark on the board of the result store. A forgotten key keeps its marks for another minute,
and a copy that arrives within that minute is still recognised.
"""

from __future__ import annotations

from celeriac.contracts.board import Marks
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy


class Copies:
    """Tells the copies of a message apart."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    async def is_first(self, copy: Copy) -> bool:
        """Mark a copy as taken; return ``False`` where another copy of the same message was taken before.

        Each delivery of one copy gets the same answer, for ``ONCE`` seconds from the first take, or for
        ``ONCE_SETTLED`` seconds from when its key was forgotten. Concurrent calls share round trips.
        """
        return await self._marks.put(_key(copy.key), copy.name, copy.number, ONCE) == copy.number

    async def forget(self, key: str) -> None:
        """Let the marks of this key expire in ``ONCE_SETTLED`` seconds, because no more copies will come."""
        await self._marks.shorten(_key(key), ONCE_SETTLED)


def _key(key: str) -> str:
    return f"copies.{key}"
