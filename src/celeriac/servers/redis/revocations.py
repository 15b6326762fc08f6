"""Tasks that must not run any more, in sorted sets of names by the time they expire.

Rules: the sets and the revision change in one step; the revision grows with the server's clock, so that one which
expired with its sets never comes again; what has expired is dropped by whoever adds next, and the last by the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.broker import Revoked
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script

_ADD = Script(
    r"""
-- KEYS: revision, ids, roots, terminate, due.
-- ARGV: seconds to keep, 1 to terminate, how many are ids, then ids and roots.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
if not known or not (known >= 0 and known < 2 ^ 53) then known = 0 end
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end
local latest = redis.call('ZRANGE', KEYS[5], -1, -1, 'WITHSCORES')[2] or now
local expires, terminate, ids = math.max(now, math.min(latest, now + 1e9)) + ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])

for i = 4, #ARGV do
  redis.call('ZADD', i <= 3 + ids and KEYS[2] or KEYS[3], 'GT', expires, ARGV[i])
  if terminate then redis.call('ZADD', KEYS[4], 'GT', expires, ARGV[i]) end
end

local last = now
for i = 2, 4 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local longest = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')[2]
  if longest then
    longest = math.min(longest, now + 2e9)
    redis.call('EXPIRE', KEYS[i], math.ceil(longest - now))
    last = math.max(last, longest)
  end
end

local revision = math.max(known + 1, time[1] * 1000000 + time[2])
redis.call('SET', KEYS[1], string.format('%.0f', revision), 'EX', math.max(1, math.ceil(last - now)))
return 1
"""
)

_LOAD = Script(
    r"""
-- KEYS: revision, ids, roots, terminate. Returns the revision and the names in each.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local reply = {redis.call('GET', KEYS[1]) or '0'}
for i = 2, 4 do reply[i] = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf') end
return reply
"""
)

_BATCH = 1000
_DIGITS = 16
"""Digits that a revision has at the most."""


def read_revision(text: bytes) -> int:
    """Return the revision; what is no number of ours is no revision."""
    return int(text) if len(text) <= _DIGITS and text.isdigit() else 0


class RedisRevocations:
    """What was revoked; see ``celeriac.broker.Revocations``."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = (keys.revision, *keys.revoked)
        self._due = keys.due

    async def add(
        self, ids: Sequence[str], *, roots: Sequence[str] = (), terminate: bool = False, keep: float = 86400.0
    ) -> None:
        if not ids and not roots:
            await self._add((), (), terminate, keep)
        for start in range(0, len(ids), _BATCH):
            await self._add(ids[start : start + _BATCH], (), terminate, keep)
        for start in range(0, len(roots), _BATCH):
            await self._add((), roots[start : start + _BATCH], terminate, keep)

    async def revision(self) -> int:
        return read_revision(await self._link.call("GET", self._keys[0]) or b"0")

    async def load(self) -> Revoked:
        revision, *found = await self._link.run(_LOAD, self._keys, ())
        ids, roots, terminate = (
            frozenset(name.decode(errors="replace") for name in names) for names in found
        )
        return Revoked(read_revision(revision), ids, roots, terminate)

    async def _add(self, ids: Sequence[str], roots: Sequence[str], terminate: bool, keep: float) -> None:
        await self._link.run(_ADD, (*self._keys, self._due), (keep, int(terminate), len(ids), *ids, *roots))
