"""Removes single messages that are rows of a table, whatever the database.

Rules: a row is deleted only while nobody has taken it, which the statement that deletes it looks at itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from celeriac.contracts.removal import STEP, Removed, Unwanted
from celeriac.servers.queue_rows import TakenMessage

Place = tuple[int, int]
"""Where a message stands in the line of its queue: priority and id."""

START: Place = (-(2**15), 0)
"""Before every place."""


class WaitingRows(Protocol):
    """The messages that wait in the queues of one database."""

    async def look(self, queue: str, after: Place, limit: int) -> Sequence[tuple[Place, TakenMessage]]:
        """Return the messages behind a place, in the order they would be taken."""
        ...

    async def delete(self, ids: Sequence[int]) -> Collection[int]:
        """Delete those of these messages that wait; return their ids."""
        ...


async def remove_rows(rows: WaitingRows, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
    """Do as ``celeriac.contracts.removal.Removing`` says."""
    after = START
    while found := await rows.look(queue, after, STEP):
        after = found[-1][0]
        messages = [(message.id, message.envelope) for _, message in found]
        chosen = [(id, envelope) for id, envelope in messages if unwanted(envelope)]
        gone = await rows.delete([id for id, _ in chosen]) if chosen else ()
        yield Removed(len(found), [envelope for id, envelope in chosen if id in gone])
