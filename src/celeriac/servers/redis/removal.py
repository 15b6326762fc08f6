"""Removes single messages from the lists of a queue.

Rules: a message goes by its value and in one step, which a worker's take cannot come between: one of the two gets it.
To remove from the middle of a list Redis walks there from an end, so those of one step share a walk: Redis is kept from
others for as long as one walk takes, which is milliseconds for a hundred thousand messages.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence

import msgspec

from celeriac.contracts.removal import STEP, Removed, Unwanted
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.wire.frame import unpack

_STEP_BYTES = 4 * 1024 * 1024
"""Bytes of messages that one step is meant to fetch."""

_LONG_STEP = 1000
"""Messages that a step looks at after the first one, if they are not large."""

_AT_ONCE = 250
"""Messages that one step of Redis removes: each is looked up by its place before all are removed in one walk."""

_REMOVE = Script(
    r"""
-- KEYS: a list. ARGV: the place of its part's first message, and of its last; the end to walk from (1 or -1); a value
-- that is no message; the messages. Returns which of these were found in that part, and are removed now.
local first, found, removed = tonumber(ARGV[1]), {}, {}
local places = {}
for i = 5, #ARGV do
  places[ARGV[i]] = i - 4
  removed[i - 4] = 0
end
for i, raw in ipairs(redis.call('LRANGE', KEYS[1], first, ARGV[2])) do
  if places[raw] then found[#found + 1] = {first + i - 1, places[raw]} end
end
for _, one in ipairs(found) do
  redis.call('LSET', KEYS[1], one[1], ARGV[4])
  removed[one[2]] = 1
end
if #found > 0 then redis.call('LREM', KEYS[1], #found * ARGV[3], ARGV[4]) end
return removed
"""
)


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
        # What is put in meanwhile moves the others on, so that some are found by a later step, or not at all.
        last = window.start + 2 * len(window.raws)
        end = 1 if window.start < window.length / 2 else -1
        gone = []
        for at in range(0, len(chosen), _AT_ONCE):
            some = chosen[at : at + _AT_ONCE]
            facts = (window.start, last, end, f"celeriac.removed.{uuid.uuid4()}")
            answers = await self._link.run(_REMOVE, [key], [*facts, *(raw for raw, _ in some)])
            gone += [message for (_, message), found in zip(some, answers, strict=True) if found]
        return Removed(len(window.raws), gone)


def _size_of_next(raws: Sequence[bytes]) -> int:
    """Return at how many messages the next step looks, if they are as large as these."""
    mean = sum(map(len, raws)) / len(raws)
    return max(1, min(_LONG_STEP, int(_STEP_BYTES / max(1.0, mean))))
