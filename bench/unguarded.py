"""A celeriac worker without what loses and repeats no task, to measure what that costs; fit for nothing else.

What is taken out: leases and their renewal, the search for what dead workers held, parked messages, revocations. What
is left is what kombu writes: ``unacked`` and ``unacked_index``.
"""

import sys

from celeriac.cli.main import main
from celeriac.servers.redis import settling, subscription
from celeriac.servers.redis.leases import Leases
from celeriac.servers.redis.link import Script
from celeriac.servers.redis.parking import Parking
from celeriac.servers.redis.recovery import Recovery

RESERVE = Script(
    r"""
-- Keys, arguments and answer are those of celeriac's own script.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local left, owner, serial = ARGV[1] + ARGV[2], ARGV[5], tonumber(ARGV[6])
local reply = {'', {}, '0', tostring(now)}
for i = 5, #KEYS do
  local tail, step = ARGV[2 * i - 2], ARGV[2 * i - 1]
  while left > 0 do
    local asked = math.min(left, 50)
    local batch = redis.call('RPOP', KEYS[i], asked)
    if not batch then break end
    local entries, times = {}, {}
    for j = 1, #batch do
      local tag = string.format('%s.%012d:%s', owner, serial, step)
      serial = serial + 1
      entries[2 * j - 1], entries[2 * j] = tag, '[' .. batch[j] .. tail
      times[2 * j - 1], times[2 * j] = now, tag
    end
    redis.call('HSET', KEYS[1], unpack(entries))
    redis.call('ZADD', KEYS[2], unpack(times))
    reply[#reply + 1] = i - 5
    reply[#reply + 1] = batch
    left = left - #batch
    if #batch < asked then break end
  end
end
return reply
"""
)

ACK = Script(
    r"""
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return {}
"""
)


async def find_nothing(*_: object) -> int:
    return 0


def take_out() -> None:
    """Replace what keeps tasks from being lost or run twice."""
    subscription.RESERVE, settling.ACK = RESERVE, ACK  # type: ignore[attr-defined]
    Leases.hold = lambda *_: True  # type: ignore[method-assign]
    Leases.release = lambda *_: None  # type: ignore[method-assign]
    Leases.rest = Parking.serve = Recovery.run = find_nothing  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    take_out()
    sys.exit(main())
