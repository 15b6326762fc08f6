"""Which copies of messages were taken, in Redis.

Rules: a key has a hash of its messages, each with the number of the copy that was taken first. Forgetting leaves it for
a minute, also for copies that are taken only then.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.servers.coalesce import Coalescer
from celeriac.servers.redis.link import Link, Script
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy

_BATCH = 500

_TAKE = Script(
    """
-- KEYS: the key of each copy. ARGV: seconds to live, then the name and number of each.
-- Returns for each 1 or 0: whether it is the first, or an error.
local answers = {}
local function take(key, name, number)
  if redis.call('HSETNX', key, name, number) == 0 then return redis.call('HGET', key, name) == number and 1 or 0 end
  if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, ARGV[1]) end
  return 1
end
for i = 1, #KEYS do
  local taken, answer = pcall(take, KEYS[i], ARGV[2 * i], ARGV[2 * i + 1])
  if not taken and type(answer) == 'table' then answer = answer.err end
  answers[i] = answer
end
return answers
"""
)

_FORGET = Script(
    """
-- KEYS: what to forget. ARGV: seconds for which it is still known.
for i = 1, #KEYS do
  redis.call('HSETNX', KEYS[i], '', '')
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
"""
)

COPIES_PREFIX = "celeriac.copies."


class RedisCopies:
    """See ``celeriac.backend.Copies``.

    :param prefix: put before every key.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._take: Coalescer[Copy, bool] = Coalescer(self._take_all, _BATCH)
        self._forget: Coalescer[str, None] = Coalescer(self._forget_all, _BATCH)

    async def is_first(self, copy: Copy) -> bool:
        return await self._take(copy)

    async def forget(self, key: str) -> None:
        await self._forget(key)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._take.drain()
        await self._forget.drain()

    async def _take_all(self, batch: Sequence[Copy]) -> list[bool | BaseException]:
        arguments: list[str | int] = [ONCE]
        for copy in batch:
            arguments += copy.name, copy.number
        answers = await self._link.run(_TAKE, [self._key(copy.key) for copy in batch], arguments)
        return [
            self._link.refusal(answer.decode(errors="replace")) if isinstance(answer, bytes) else bool(answer)
            for answer in answers
        ]

    async def _forget_all(self, keys: Sequence[str]) -> list[None]:
        await self._link.run(_FORGET, [self._key(key) for key in keys], [ONCE_SETTLED])
        return [None] * len(keys)

    def _key(self, key: str) -> str:
        return f"{self._prefix}{COPIES_PREFIX}{key}"
