"""Removes single messages from the lists of a queue.

Rules: a message goes by its value and in one command, ``LREM``, which a worker's take cannot come between: one of the
two gets it. ``LREM`` walks from the nearer end of its list, and so many go in one round trip as do not keep Redis from
others for longer than milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from celeriac.contracts.removal import STEP, Removed, Unwanted
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.wire.frame import unpack

_STEP_BYTES = 4 * 1024 * 1024
"""Bytes of messages that one step is meant to fetch."""

_WALKED = 100_000
"""Messages that the commands of one round trip walk over: some milliseconds' work of Redis."""


class _Window(msgspec.Struct, frozen=True):
    """A part of a list.

    :param start: its place, counted from the end at which messages are put in.
    :param length: of the list.
    """

    start: int
    length: int
    raws: Sequence[bytes]


class Removal:
    """Removes messages of one broker; see ``celeriac.contracts.removal.Removing``."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        for key in self._keys.lists_of(queue).keys:
            window = await self._look(key, -STEP, -1)
            yield await self._clear(key, window, unwanted)
            if len(window.raws) < STEP:
                continue
            # From the end where new ones are put in: what moves meanwhile moves on to where it is still looked at.
            start, size = 0, STEP
            while (window := await self._look(key, start, start + size - 1)).raws:
                removed = await self._clear(key, window, unwanted)
                yield removed
                start += len(window.raws) - len(removed.messages)
                size = _size_of_next(window.raws)

    async def _look(self, key: str, first: int, last: int) -> _Window:
        length, raws = await self._link.answers([("LLEN", key), ("LRANGE", key, first, last)])
        return _Window(first if first >= 0 else length - len(raws), length, raws)

    async def _clear(self, key: str, window: _Window, unwanted: Unwanted) -> Removed:
        messages = [(raw, unpack(raw)) for raw in reversed(window.raws)]  # the next to be taken is the last
        chosen = [(raw, message) for raw, message in messages if unwanted(message)]
        is_new = window.start < window.length / 2
        walk = STEP + (window.start if is_new else max(0, window.length - window.start - len(window.raws)))
        many = max(1, _WALKED // walk)
        gone = []
        for at in range(0, len(chosen), many):
            some = chosen[at : at + many]
            answers = await self._link.answers([("LREM", key, 1 if is_new else -1, raw) for raw, _ in some])
            gone += [message for (_, message), number in zip(some, answers, strict=True) if number]
        return Removed(len(window.raws), gone)


def _size_of_next(raws: Sequence[bytes]) -> int:
    """Return at how many messages the next step looks, if they are as large as these."""
    mean = sum(map(len, raws)) / len(raws)
    return max(1, min(STEP, int(_STEP_BYTES / max(1.0, mean))))
