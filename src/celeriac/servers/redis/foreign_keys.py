"""Renames keys that have a name of ours but another Redis type, so that they cannot stop workers.

Rules: such a key is never deleted, but renamed, with one warning. A key that Celery uses, too, is left as it is, and an
error names it, so that a person decides.
"""

from __future__ import annotations

import logging

from celeriac.errors import BrokerError
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script

_log = logging.getLogger("celeriac.broker.redis")

_SET_ASIDE = Script(
    r"""
-- KEYS: what is to be of a type. ARGV: that type for each, with a ! where the key is not to be renamed.
-- Returns for each of another type its name, type and new name, '' where it was not renamed.
local time = redis.call('TIME')
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  local wanted, keeps = string.match(ARGV[i], '^(%a+)(!?)$')
  if kind ~= 'none' and kind ~= wanted then
    local name = ''
    if keeps == '' then
      name = string.format('%s.set-aside.%s%06d', key, time[1], time[2])
      redis.call('RENAME', key, name)
    end
    for _, part in ipairs({key, kind, name}) do found[#found + 1] = part end
  end
end
return found
"""
)


class ForeignKeys:
    """Renames foreign keys under the names of one broker."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def set_aside(self) -> bool:
        """Rename what is of the wrong type; return whether anything was. Raises ``BrokerError`` for kombu's keys."""
        kinds = self._keys.kinds
        shared = (self._keys.unacked, self._keys.index)
        wanted = [f"{kind}!" if key in shared else kind for key, kind in kinds.items()]
        found = [
            part.decode(errors="replace") for part in await self._link.run(_SET_ASIDE, tuple(kinds), wanted)
        ]
        moved = False
        for key, kind, name in zip(found[::3], found[1::3], found[2::3], strict=True):
            if not name:
                raise BrokerError(
                    f"the key {key} of {self._link.target} is a {kind}, and not the {kinds[key]} that Celery "
                    "and celeriac keep there: rename or delete it"
                )
            moved = True
            _log.warning("the key %s of %s was a %s and is now called %s", key, self._link.target, kind, name)
        return moved
