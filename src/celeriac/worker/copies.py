"""Which copies of messages were taken, where a broker cannot tell what it was sent twice (``Broker.may_repeat``).

Rules: they are marks on the board of the result store. Forgetting leaves what is known for a minute, also of copies
that are taken only then.
"""

from __future__ import annotations

from celeriac.board import Marks
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy


class Copies:
    """Tells the copies of a message apart."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    async def is_first(self, copy: Copy) -> bool:
        """Take a copy; return ``False`` where another one of the same was taken before.

        The answer to a copy is always the same, however often it is delivered, for ``ONCE`` seconds from the first
        taken, or for ``ONCE_SETTLED`` from when its key was forgotten. Concurrent calls share round trips.
        """
        return await self._marks.put(_key(copy.key), copy.name, copy.number, ONCE) == copy.number

    async def forget(self, key: str) -> None:
        """Keep what is known under this key for no longer than ``ONCE_SETTLED`` seconds: no more copies will come."""
        await self._marks.shorten(_key(key), ONCE_SETTLED)


def _key(key: str) -> str:
    return f"copies.{key}"
