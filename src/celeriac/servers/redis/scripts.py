"""The Lua scripts of the broker: each makes one change of its keys in one step.

Rules: at every moment a message is in a list or in ``unacked``, so that none is lost. Commands that the server may
refuse come before those that remove, and a key of the wrong type ends a script before it has changed anything. Scripts
go by the server's clock. Of a message's content they read only ETA, expiry and ids. A lease time that cannot be
ours counts as ended; a tag that is not of our form counts as a Celery worker's.

Keys, beside kombu's (``unacked``: tag to ``[message, exchange, routing_key]``, ``unacked_index``: tag to time):
``celeriac.leases`` tag to the end of its term (see ``leases``), ``celeriac.due`` tag to the time it is parked until,
``celeriac.dead`` and ``celeriac.dead.index`` the dead letters and when they died, ``celeriac.failed`` and
``celeriac.failed.index`` the messages of failed tasks, by the tasks' ids.
"""

from __future__ import annotations

from celeriac.servers.redis.link import Script

NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

FAILED = """
local function failed(answer) return type(answer) == 'table' and answer.err end
"""

TYPES = """
-- A key of the wrong type ends the script here, before anything was changed.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
"""

KEEPING = r"""
-- Keeps an entry of the failed list; trim then drops what is too much or too old.
local function keep(hash, index, id, entry)
  redis.call('HSET', hash, id, entry)
  redis.call('ZADD', index, now, id)
end
local function trim(hash, index, most, seconds)
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - seconds, 'LIMIT', 0, 1000)
  local many = redis.call('ZCARD', index) - #old - most
  if many > 0 then
    for _, id in ipairs(redis.call('ZRANGE', index, #old, #old + math.min(many, 1000) - 1)) do old[#old + 1] = id end
  end
  if #old > 0 then
    redis.call('HDEL', hash, unpack(old))
    redis.call('ZREM', index, unpack(old))
  end
  local last = math.ceil(seconds * 1000)
  redis.call('PEXPIRE', hash, last)
  redis.call('PEXPIRE', index, last)
end
"""

_LEASE_END = """
-- Whether a lease has ended; one that lasts for more than a week cannot be ours, and counts as ended.
local function ended(lease) return lease <= now or lease > now + 604800 end
"""

_LATER = r"""
-- Seconds since the epoch of a time with a zone, as Celery writes it; nil for anything else.
local function seconds(text)
  if type(text) ~= 'string' then return nil end
  local form = '^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$'
  local y, m, d, hour, minute, second, rest = string.match(text, form)
  local fraction, sign, zone_hours, zone_minutes = string.match(rest or '', '^(%.?%d*)([+-])(%d%d):(%d%d)$')
  if not sign then return nil end
  y, m, d = tonumber(y), tonumber(m), tonumber(d)
  if m < 1 or m > 12 or d < 1 or d > 31 or tonumber(hour) > 23 or tonumber(minute) > 59 or tonumber(second) > 59
    or tonumber(zone_hours) > 23 or tonumber(zone_minutes) > 59 then return nil end
  -- Days of the civil calendar, whose years begin in March here.
  if m <= 2 then y = y - 1 end
  local century = math.floor(y / 100)
  local days = 365 * y + math.floor(y / 4) - century + math.floor(century / 4)
  days = days + math.floor((153 * ((m + 9) % 12) + 2) / 5) + d - 719469
  local zone = tonumber(sign .. (zone_hours * 3600 + zone_minutes * 60))
  return days * 86400 + hour * 3600 + minute * 60 + second + (tonumber('0' .. fraction) or 0) - zone
end

-- When a message of protocol 2 is due; nil where a worker must see it at once (it is due, expired or revoked).
local function due_of(raw, now, prefix)
  if not string.find(raw, '"eta": "', 1, true) then return nil end
  local readable, frame = pcall(cjson.decode, raw)
  local headers = readable and type(frame) == 'table' and frame.headers
  if type(headers) ~= 'table' then return nil end
  local at = seconds(headers.eta)
  if not at or at <= now + 1 then return nil end
  local expires = seconds(headers.expires)
  if expires and expires <= now then return nil end
  for _, told in ipairs({{'ids', headers.id}, {'roots', headers.root_id}}) do
    -- Also if the set cannot be read: the worker that takes the message then finds out.
    if type(told[2]) == 'string' and redis.pcall('ZSCORE', prefix .. 'celeriac.revoked.' .. told[1], told[2]) then
      return nil
    end
  end
  if type(headers.stamps) == 'table' and next(headers.stamps)
    and redis.call('EXISTS', prefix .. 'celeriac.revoked.stamps') == 1 then return nil end
  return at
end
"""

RESERVE = Script(
    TYPES
    + NOW
    + FAILED
    + _LATER
    + r"""
-- KEYS: unacked, index, leases, due, then lists in the order they are taken from
-- ARGV: how many can start now, how many more to reserve, term, lease, owner, first serial, key prefix, then for each
-- list: how its entries end, its step.
-- Returns seconds to the next due time or '', what went wrong, the revision of the revocations, the time, then for
-- each list its number and messages. Messages that are due later are parked here, so that they take no slot.
local unacked, index, leases, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local startable, term, lease = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local left = startable + ARGV[2]
local owner, serial, prefix = ARGV[5], tonumber(ARGV[6]), ARGV[7]

local revision = redis.call('GET', prefix .. 'celeriac.revoked.revision') or '0'

local function text(json)
  local readable, parts = pcall(cjson.decode, '[' .. json .. ']')
  return readable and type(parts[1]) == 'string' and parts[1] or nil
end

local function origin(tag, entry)
  local raw, queue = string.match(entry, '^%[(.*), "", "(.*)"%]$')
  if not raw or queue == '' then return nil end
  if string.sub(raw, 1, 1) == '"' then raw = text(raw) end
  if string.find(queue, '\\', 1, true) then queue = text('"' .. queue .. '"') end
  if not raw or not queue then return nil end
  local step = string.match(tag, ':(%d)$') or '0'
  local list = prefix .. queue
  if step ~= '0' then list = list .. '\6\22' .. step end
  return raw, list
end

local trouble = {}
local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
-- No more than can be taken now: what is put back later goes ahead of what is left here.
local is_due = head[2] and tonumber(head[2]) <= now
local ripe = is_due and redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, left) or {}
for i = #ripe, 1, -1 do
  local tag = ripe[i]
  local entry = redis.call('HGET', unacked, tag)
  local raw, list
  if entry then raw, list = origin(tag, entry) end
  -- What cannot be read is left to recovery, which buries it.
  if entry and not raw then redis.call('ZADD', index, 0, tag) end
  local pushed = raw and redis.pcall('RPUSH', list, raw)
  if failed(pushed) then
    trouble[#trouble + 1] = list .. ': ' .. pushed.err
    redis.call('ZADD', due, now + 60, tag)
  else
    if raw then
      redis.call('HDEL', unacked, tag)
      redis.call('ZREM', index, tag)
    end
    redis.call('ZREM', due, tag)
  end
end

local reply = {'', trouble, revision, time[1] .. string.format('.%06d', time[2])}
local bytes, parked, largest = 0, 0, 16777216
-- How many to take next: so few that an answer stays below 16 MiB, and what cannot start below 1 MiB. The first message
-- is taken alone, since nothing else tells how large they are.
local function share()
  if parked >= 1000 then return 0 end
  local room = (startable > 0 and 16777216 or 1048576) - bytes
  local count = math.min(left, 50, math.floor(room / largest))
  if count <= 0 then return bytes == 0 and math.min(left, 1) or 0 end
  if startable > 0 and count * largest > 1048576 then count = math.min(count, startable) end
  return count
end

for i = 5, #KEYS do
  local tail, step = ARGV[2 * i - 2], ARGV[2 * i - 1]
  while true do
    local asked, first = share(), bytes == 0
    local batch = asked > 0 and redis.pcall('RPOP', KEYS[i], asked)
    if not batch then break end
    if batch.err then
      trouble[#trouble + 1] = KEYS[i] .. ': ' .. batch.err
      break
    end
    local entries, times, ends, dues, given = {}, {}, {}, {}, {}
    for j = 1, #batch do
      local raw = batch[j]
      if bytes == 0 then largest = 1 end
      bytes = bytes + #raw
      largest = math.max(largest, #raw)
      local at, tag = due_of(raw, now, prefix)
      if at then
        parked = parked + 1
        tag = string.format('parked-%s.%s%06d.%d:%s', owner, time[1], time[2], parked, step)
        dues[#dues + 1] = at
        dues[#dues + 1] = tag
      else
        at = now + lease
        tag = string.format('%s.%012d:%s', owner, serial, step)
        serial = serial + 1
        given[#given + 1] = raw
        ends[#ends + 1] = now + term
        ends[#ends + 1] = tag
      end
      -- What is no object goes in as text, so that the entry is JSON for every peer.
      if string.byte(raw, 1) ~= 123 or string.byte(raw, -1) ~= 125 then raw = cjson.encode(raw) end
      entries[2 * j - 1] = tag
      entries[2 * j] = '[' .. raw .. tail
      times[2 * j - 1] = at
      times[2 * j] = tag
    end
    redis.call('HSET', unacked, unpack(entries))
    redis.call('ZADD', index, unpack(times))
    if #dues > 0 then redis.call('ZADD', due, unpack(dues)) end
    if #given > 0 then
      redis.call('ZADD', leases, unpack(ends))
      reply[#reply + 1] = i - 5
      reply[#reply + 1] = given
      left = left - #given
      startable = startable - #given
    end
    if #batch < asked then break end
    -- Most often one message comes alone: then one look does for all the lists.
    if first and #KEYS < 1000 and redis.call('EXISTS', unpack(KEYS, i)) == 0 then left = 0 end
  end
end

if #ripe > 0 or parked > 0 then head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES') end
if head[2] then reply[1] = tostring(head[2] - now) end
return reply
"""
)

ACK = Script(
    TYPES
    + r"""
-- KEYS: unacked, index, leases. ARGV: tags. Returns the positions of those that were lost before.
local known = redis.call('ZMSCORE', KEYS[2], unpack(ARGV))
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
redis.call('ZREM', KEYS[3], unpack(ARGV))
local lost = {}
for i = 1, #ARGV do
  if not known[i] then lost[#lost + 1] = i - 1 end
end
return lost
"""
)

REQUEUE = Script(
    TYPES
    + FAILED
    + r"""
-- KEYS: unacked, index, leases, then a list for each. ARGV: tag, message for each. Returns 1, 0 (lost) or an error.
local reply = {}
for i = 1, #ARGV / 2 do
  local tag, raw = ARGV[2 * i - 1], ARGV[2 * i]
  reply[i] = 0
  if redis.call('HEXISTS', KEYS[1], tag) == 1 then
    local pushed = redis.pcall('RPUSH', KEYS[i + 3], raw)
    if failed(pushed) then
      reply[i] = pushed.err
    else
      redis.call('HDEL', KEYS[1], tag)
      redis.call('ZREM', KEYS[2], tag)
      redis.call('ZREM', KEYS[3], tag)
      reply[i] = 1
    end
  end
end
return reply
"""
)

PARK = Script(
    TYPES
    + r"""
-- KEYS: unacked, index, leases, due. ARGV: tag, new tag, due for each. Returns 1 or 0 (lost).
-- The new tag makes the receipt void. A peer of kombu's kind would restore the entry late, never early.
redis.call('ZCARD', KEYS[4])
local tags = {}
for i = 1, #ARGV / 3 do tags[i] = ARGV[3 * i - 2] end
local held = redis.call('HMGET', KEYS[1], unpack(tags))

local reply, entries, times, gone, seen = {}, {}, {}, {}, {}
for i, tag in ipairs(tags) do
  local parked, at = ARGV[3 * i - 1], ARGV[3 * i]
  reply[i] = held[i] and not seen[tag] and 1 or 0
  if reply[i] == 1 then
    seen[tag] = true
    gone[#gone + 1] = tag
    entries[#entries + 1], times[#times + 1] = parked, at
    entries[#entries + 1], times[#times + 1] = held[i], parked
  end
end

if #gone > 0 then
  redis.call('HSET', KEYS[1], unpack(entries))
  redis.call('ZADD', KEYS[2], unpack(times))
  redis.call('ZADD', KEYS[4], unpack(times))
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
  redis.call('ZREM', KEYS[3], unpack(gone))
end
return reply
"""
)

BURY = Script(
    TYPES
    + NOW
    + r"""
-- KEYS: unacked, index, leases, dead, dead index. ARGV: tag, letter for each. Returns 1 or 0 (lost).
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
local reply = {}
for i = 1, #ARGV / 2 do
  local tag, letter = ARGV[2 * i - 1], ARGV[2 * i]
  reply[i] = 0
  if redis.call('HEXISTS', KEYS[1], tag) == 1 then
    redis.call('HSET', KEYS[4], tag, letter)
    redis.call('ZADD', KEYS[5], now, tag)
    redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    reply[i] = 1
  end
end
return reply
"""
)

FAIL = Script(
    TYPES
    + NOW
    + KEEPING
    + r"""
-- KEYS: unacked, index, leases, failed, failed index. ARGV: most, seconds, then tag, id and head for each; where the
-- message was acknowledged before, an empty tag, and the whole entry. Returns 1 or 0 (lost).
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
local reply = {}
for i = 1, (#ARGV - 2) / 3 do
  local tag, id, head = ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  reply[i] = 0
  local entry = tag == '' and '' or redis.call('HGET', KEYS[1], tag)
  if entry then
    keep(KEYS[4], KEYS[5], id, head .. entry)
    if tag ~= '' then
      redis.call('HDEL', KEYS[1], tag)
      redis.call('ZREM', KEYS[2], tag)
      redis.call('ZREM', KEYS[3], tag)
    end
    reply[i] = 1
  end
end
trim(KEYS[4], KEYS[5], tonumber(ARGV[1]), tonumber(ARGV[2]))
return reply
"""
)

RENEW = Script(
    NOW
    + r"""
-- KEYS: index, leases. ARGV: owner, term, lease, then first and last serial of each batch that never arrived.
-- Renews what this owner holds and what is in the second half of its term, known to the owner or not: its tags say
-- whose they are. Returns how many.
local owner, term, lease = ARGV[1] .. '.', tonumber(ARGV[2]), tonumber(ARGV[3])

local function arrived(serial)
  if not serial then return false end
  for i = 4, #ARGV, 2 do
    if serial >= tonumber(ARGV[i]) and serial <= tonumber(ARGV[i + 1]) then return false end
  end
  return true
end

local time, term_end = string.format('%.6f', now + lease), string.format('%.6f', now + term)
local times, ends, size, count = {}, {}, 0, 0
local function renew()
  redis.call('ZADD', KEYS[1], 'XX', unpack(times, 1, size))
  redis.call('ZADD', KEYS[2], 'XX', unpack(ends, 1, size))
  count = count + size / 2
  size = 0
end

for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now + term / 2)) do
  if string.sub(tag, 1, #owner) == owner and arrived(tonumber(string.sub(tag, #owner + 1, #owner + 12))) then
    times[size + 1], ends[size + 1] = time, term_end
    size = size + 2
    times[size], ends[size] = tag, tag
    if size == 1000 then renew() end
  end
end
if size > 0 then renew() end
return count
"""
)

END = Script(
    r"""
-- KEYS: leases. ARGV: owner. Ends the leases of an owner that has died.
for _, tag in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(tag, 1, #ARGV[1] + 1) == ARGV[1] .. '.' then redis.call('ZADD', KEYS[1], 'XX', 0, tag) end
end
"""
)

LAPSED = Script(
    "if redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3]) == 0 then return {} end  -- nobody holds anything"
    + TYPES
    + NOW
    + r"""
-- KEYS: unacked, index, leases, due. ARGV: visibility timeout, limit.
-- Newest first, so that the oldest is put back last and taken first; leases without an entry are deleted.
-- Returns tag and entry of messages of dead celeriac workers, and of those that a Celery worker held for too long.
local reply = {}
redis.call('ZCARD', KEYS[4])
local lapsed = redis.call('ZREVRANGEBYSCORE', KEYS[3], now, '-inf', 'LIMIT', 0, ARGV[2])
if not lapsed[1] then
  lapsed = redis.call('ZREVRANGEBYSCORE', KEYS[3], '+inf', '(' .. now + 604800, 'LIMIT', 0, ARGV[2])
end
if lapsed[1] then
  -- Changes nothing, and is refused where renewing is (OOM, READONLY, ...): then no worker is suspected.
  redis.call('ZADD', KEYS[3], 'XX', redis.call('ZSCORE', KEYS[3], lapsed[1]), lapsed[1])
end
for _, tag in ipairs(lapsed) do
  local entry = redis.call('HGET', KEYS[1], tag)
  if entry then
    reply[#reply + 1] = tag
    reply[#reply + 1] = entry
  else
    redis.call('ZREM', KEYS[3], tag)
  end
end
for _, tag in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[2], now - ARGV[1], '-inf', 'LIMIT', 0, ARGV[2])) do
  if not redis.call('ZSCORE', KEYS[3], tag) and not redis.call('ZSCORE', KEYS[4], tag) then
    local entry = redis.call('HGET', KEYS[1], tag)
    if entry then
      reply[#reply + 1] = tag
      reply[#reply + 1] = entry
    else
      redis.call('ZREM', KEYS[2], tag)
    end
  end
end
return reply
"""
)

RESTORE = Script(
    TYPES
    + NOW
    + FAILED
    + _LEASE_END
    + r"""
-- KEYS: unacked, index, leases, due, then a list for each. ARGV: visibility timeout, then tag, message for each.
-- Returns 1, 0 (renewed or settled meanwhile) or what its list says against it.
redis.call('ZCARD', KEYS[4])
local reply = {}
for i = 1, (#ARGV - 1) / 2 do
  local tag, raw = ARGV[2 * i], ARGV[2 * i + 1]
  local lease = redis.call('ZSCORE', KEYS[3], tag)
  local void
  if lease then
    void = ended(tonumber(lease))
  elseif not redis.call('ZSCORE', KEYS[4], tag) then
    local since = redis.call('ZSCORE', KEYS[2], tag)
    void = since and tonumber(since) <= now - ARGV[1]
  end
  reply[i] = 0
  if void and redis.call('HEXISTS', KEYS[1], tag) == 1 then
    reply[i] = failed(redis.pcall('RPUSH', KEYS[i + 4], raw)) or 1
    if reply[i] == 1 then
      redis.call('HDEL', KEYS[1], tag)
      redis.call('ZREM', KEYS[2], tag)
      redis.call('ZREM', KEYS[3], tag)
    end
  end
end
return reply
"""
)
