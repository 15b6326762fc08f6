"""The parked messages of a Redis: due times are in a sorted set, the messages in ``unacked``.

Rules: a message that is due counts as parked until a worker looks. A waiting worker looks at the due time itself.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from celeriac.contracts.broker import Parked
from celeriac.servers.redis.entries import parse_entry
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.wire.envelope import Unreadable
from celeriac.wire.frame import unpack

_LIST = Script(
    r"""
-- KEYS: unacked, due. ARGV: first, last. Returns tag, time and entry of each.
local reply = {}
local found = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2], 'WITHSCORES')
for i = 1, #found, 2 do
  local entry = redis.call('HGET', KEYS[1], found[i])
  if entry then
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = found[i + 1]
    reply[#reply + 1] = entry
  end
end
return reply
"""
)

_HORIZON = Script(
    r"""
-- KEYS: due. Returns the seconds to the last time that is one.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local latest = redis.call('ZREVRANGEBYSCORE', KEYS[1], now + 1e9, now, 'WITHSCORES', 'LIMIT', 0, 1)[2]
return tostring(latest and latest - now or 0)
"""
)

_DELETE = Script(
    r"""
-- KEYS: unacked, index, due. ARGV: tags. Returns how many were parked.
local deleted = 0
for _, tag in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[3], tag) == 1 then
    deleted = deleted + redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
  end
end
return deleted
"""
)


class RedisSchedule:
    """The parked messages of one broker; see ``celeriac.contracts.broker.Schedule``."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[Parked]:
        if limit <= 0:
            return []
        keys = (self._keys.unacked, self._keys.due)
        found = await self._link.run(_LIST, keys, (offset, offset + limit - 1))
        return [_parked(*found[start : start + 3]) for start in range(0, len(found), 3)]

    async def count(self) -> int:
        return int(await self._link.call("ZCARD", self._keys.due))

    async def delete(self, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        keys = (self._keys.unacked, self._keys.index, self._keys.due)
        return int(await self._link.run(_DELETE, keys, ids))

    async def horizon(self) -> float:
        return float(await self._link.run(_HORIZON, (self._keys.due,), ()))


def _parked(tag: bytes, due: bytes, value: bytes) -> Parked:
    entry = parse_entry(value)
    name, at = tag.decode(errors="replace"), float(due)
    if entry is None:
        return Parked(id=name, envelope=Unreadable(value, "the entry cannot be read"), queue="", due=at)
    return Parked(id=name, envelope=unpack(entry.raw), queue=entry.routing_key, due=at)
