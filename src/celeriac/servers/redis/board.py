"""The board of one Redis: sorted sets of names, hashes of marks, a string for each lease, a list of times for each
window.

Rules: each call is one script, and goes by the server's clock. The step that writes a key also sets its expiry. A key
of another type under one of these names is renamed, and a warning names it. A revision or number that cannot be one of
ours is ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.contracts.board import LEASE_AHEAD, LONGEST_WAIT, SLOT_AHEAD, SLOT_KEPT, Contents, Tenure
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.redis.keys import revision_key, set_key
from celeriac.servers.redis.link import Link, Script

_log = logging.getLogger("celeriac.board.redis")

_BATCH = 500
"""Marks that go in one round trip."""

_STEP = 1000
"""Names that change in one step."""

_DIGITS = 16
"""Digits that a revision has at the most."""

MARK_PREFIX = "celeriac.mark."
_LEASE_PREFIX = "celeriac.lease."
_WINDOW_PREFIX = "celeriac.window."
_SLOT_PREFIX = "celeriac.slot."

START = r"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local clock = string.format('%d.%06d', time[1], time[2])
local aside = {}

-- Renames a key of another type. The script returns the new names at its end, so that they are logged.
local function own(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    local name = string.format('%s.set-aside.%s%06d', key, time[1], time[2])
    redis.call('RENAME', key, name)
    for _, part in ipairs({key, found, name}) do aside[#aside + 1] = part end
  end
end
"""

_CHANGE = r"""
-- KEYS: revision, then sets. ARGV: milliseconds to keep, or 0 to remove; then set and name of each.
own(KEYS[1], 'string')
for i = 2, #KEYS do own(KEYS[i], 'zset') end
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
if not known or not (known >= 0 and known < 2 ^ 53) then known = 0 end
local keep = tonumber(ARGV[1]) / 1000
for i = 2, #ARGV, 2 do
  local key = KEYS[ARGV[i] + 2]
  if keep > 0 then redis.call('ZADD', key, 'GT', now + keep, ARGV[i + 1]) else redis.call('ZREM', key, ARGV[i + 1]) end
end

local lasts = math.max(1, redis.call('TTL', KEYS[1]))
for i = 2, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local latest = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')[2]
  if latest then
    latest = math.ceil(math.min(latest - now, 2e9))
    redis.call('EXPIRE', KEYS[i], latest)
    lasts = math.max(lasts, latest)
  end
end
-- It grows with the clock, so that one which expired never comes again.
local revision = math.max(known + 1, time[1] * 1000000 + time[2])
redis.call('SET', KEYS[1], string.format('%.0f', revision), 'EX', lasts)
return {1, aside}
"""

_LOAD = r"""
-- KEYS: revision, then sets. Returns the time, the revision, and names and times of each.
if redis.call('EXISTS', unpack(KEYS)) == 0 then  -- as most often: each idle worker asks for the paused queues
  local nothing = {clock, '0'}
  for i = 2, #KEYS do nothing[i + 1] = {} end
  return {nothing, aside}
end
own(KEYS[1], 'string')
local reply = {clock, redis.call('GET', KEYS[1]) or '0'}
for i = 2, #KEYS do
  own(KEYS[i], 'zset')
  reply[i + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf', 'WITHSCORES')
end
return {reply, aside}
"""

_SET_NEW = r"""
-- Sets a field that is not there; returns 1 or 0, or an error. That the key is a hash is looked at where it was none.
local function set_new(key, name, value)
  local answer = redis.pcall('HSETNX', key, name, value)
  if type(answer) == 'table' then
    own(key, 'hash')
    answer = redis.pcall('HSETNX', key, name, value)
  end
  return answer
end
"""

_PUT = (
    _SET_NEW
    + r"""
-- KEYS: the key of each mark. ARGV: milliseconds to keep, name and value of each. Returns for each 1
-- if it was put, else in a list what is there, or an error.
local answers = {}
for i = 1, #KEYS do
  local key, name, value = KEYS[i], ARGV[3 * i - 1], ARGV[3 * i]
  local is_new = set_new(key, name, value)
  if type(is_new) == 'table' then
    answers[i] = is_new.err
  else
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ARGV[3 * i - 2]) end
    answers[i] = is_new == 1 or {redis.call('HGET', key, name)}
  end
end
return {answers, aside}
"""
)

UNMARK = r"""
-- Removes a mark if it has this value; a key of another type has none.
local function unmark(key, name, value)
  if redis.pcall('HGET', key, name) == value then redis.call('HDEL', key, name) end
end
"""

_REMOVE = r"""
-- KEYS: key. ARGV: name, value.
own(KEYS[1], 'hash')
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {0, aside} end
return {redis.call('HDEL', KEYS[1], ARGV[1]), aside}
"""

_SHORTEN = (
    _SET_NEW
    + r"""
-- KEYS: keys. ARGV: milliseconds for each. A mark that no name has keeps the end of a key that is empty.
for i = 1, #KEYS do
  local is_new = set_new(KEYS[i], '\0', '')
  if type(is_new) == 'table' then return is_new end
  local left = redis.call('PTTL', KEYS[i])
  if left < 0 or left > tonumber(ARGV[i]) then redis.call('PEXPIRE', KEYS[i], ARGV[i]) end
end
return {1, aside}
"""
)

_HOLD = r"""
-- KEYS: lease. ARGV: holder, milliseconds, milliseconds that are too many. Returns 1 if it is the holder's, the time.
own(KEYS[1], 'string')
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  -- A lease without an expiry, or with one that is far, is not one of ours; it gets one here, so that it ends.
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 or left > tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return {{0, clock}, aside}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {{1, clock}, aside}
"""

_RELEASE = r"""
-- KEYS: lease. ARGV: holder.
own(KEYS[1], 'string')
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {1, aside}
"""

KNOWN_SLOT = r"""
-- Returns an entry's last slot; what is no number, or too far ahead, is none of ours.
local function last_slot(key, ahead)
  own(key, 'string')
  local text = redis.call('GET', key)
  local slot = tonumber(text or '')
  return slot and slot < now + ahead and text or false
end

local function advance(key, ahead, keep, slot)
  local last = last_slot(key, ahead)
  if last and tonumber(last) >= tonumber(slot) then return false end
  redis.call('SET', key, slot, 'EX', keep)
  return true
end
"""

_ADVANCE = (
    KNOWN_SLOT
    + r"""
-- KEYS: the slot of each entry. ARGV: seconds that one may be ahead, seconds to keep, then a slot for each.
local answers = {}
for i = 1, #KEYS do answers[i] = advance(KEYS[i], ARGV[1], ARGV[2], ARGV[i + 2]) and 1 or 0 end
return {answers, aside}
"""
)

_LAST = (
    KNOWN_SLOT
    + r"""
-- KEYS: the slot of each entry. ARGV: seconds that one may be ahead. Returns each as text, or false.
local answers = {}
for i = 1, #KEYS do answers[i] = last_slot(KEYS[i], ARGV[1]) end
return {answers, aside}
"""
)

_TURN = r"""
-- KEYS: the moments of the last turns. ARGV: most, window, wait, longest wait. Returns the seconds to the next one.
own(KEYS[1], 'list')
local most, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local function moment(position)
  local at = tonumber(redis.call('LINDEX', KEYS[1], position) or '')
  return at and at <= now + ARGV[4] and at or 0
end
local at = math.max(now, moment(-most) + window, moment(-1))
if at - now <= tonumber(ARGV[3]) then
  redis.call('RPUSH', KEYS[1], string.format('%.6f', at))
  redis.call('LTRIM', KEYS[1], -most, -1)
  redis.call('PEXPIRE', KEYS[1], math.ceil((at - now + window) * 1000))
end
return {tostring(at - now), aside}
"""


class BoardScripts:
    """Runs the scripts of a board, and says what they set aside."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._known: dict[str, Script] = {}

    async def run(self, text: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        for key in keys:
            self.link.check_name(key)
        script = self._known.get(text) or self._known.setdefault(text, Script(START + text))
        answer, aside = await self.link.run(script, keys, arguments)
        self.warn(aside)
        return answer

    def warn(self, aside: Sequence[bytes]) -> None:
        """Log what a script set aside."""
        for key, kind, name in zip(*(map(_text, aside[part::3]) for part in range(3)), strict=True):
            _log.warning("the key %s of %s was a %s and is now called %s", key, self.link.target, kind, name)


class RedisSets:
    """See ``celeriac.contracts.board.Sets``."""

    def __init__(self, scripts: BoardScripts, prefix: str) -> None:
        self._scripts = scripts
        self._prefix = prefix

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        await self._change(name, members, _milliseconds(keep))

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        await self._change(name, members, 0)

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        clock, revision, *found = await self._scripts.run(_LOAD, self._keys(name, sets))
        return Contents(
            read_revision(revision),
            {kind: dict(_read_members(names)) for kind, names in zip(sets, found, strict=True)},
            float(clock),
        )

    async def revision(self, name: str) -> int:
        return (await self.load(name, ())).revision

    async def _change(self, name: str, members: Mapping[str, Collection[str]], keep: int) -> None:
        keys = self._keys(name, list(members))
        pairs = [(number, member) for number, names in enumerate(members.values()) for member in names]
        for step in [pairs[start : start + _STEP] for start in range(0, len(pairs), _STEP)] or [[]]:
            await self._scripts.run(_CHANGE, keys, (keep, *(part for pair in step for part in pair)))

    def _keys(self, name: str, sets: Sequence[str]) -> list[str]:
        return [revision_key(self._prefix, name), *(set_key(self._prefix, name, kind) for kind in sets)]


class _Mark(msgspec.Struct, frozen=True):
    key: str
    name: str
    value: str
    keep: float


class RedisMarks:
    """See ``celeriac.contracts.board.Marks``."""

    def __init__(self, scripts: BoardScripts, prefix: str) -> None:
        self._scripts = scripts
        self._prefix = prefix
        self._put: Coalescer[_Mark, str] = Coalescer(self._put_all, _BATCH)
        self._shorten: Coalescer[tuple[str, float], None] = Coalescer(self._shorten_all, _BATCH)

    async def put(self, key: str, name: str, value: str, keep: float) -> str:
        return await self._put(_Mark(self._key(key), name, value, keep))

    async def remove(self, key: str, name: str, value: str) -> bool:
        return bool(await self._scripts.run(_REMOVE, [self._key(key)], (name, value)))

    async def shorten(self, key: str, keep: float) -> None:
        await self._shorten((self._key(key), keep))

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._put.drain()
        await self._shorten.drain()

    async def _put_all(self, batch: Sequence[_Mark]) -> list[str | BaseException]:
        arguments: list[str | int] = []
        for mark in batch:
            arguments += _milliseconds(mark.keep), mark.name, mark.value
        answers = await self._scripts.run(_PUT, [mark.key for mark in batch], arguments)
        return [self._standing(mark, answer) for mark, answer in zip(batch, answers, strict=True)]

    def _standing(self, mark: _Mark, answer: int | list[bytes] | bytes) -> str | BaseException:
        if isinstance(answer, int):
            return mark.value
        return _text(answer[0]) if isinstance(answer, list) else self._scripts.link.refusal(_text(answer))

    async def _shorten_all(self, batch: Sequence[tuple[str, float]]) -> list[None]:
        await self._scripts.run(
            _SHORTEN, [key for key, _ in batch], [_milliseconds(keep) for _, keep in batch]
        )
        return [None] * len(batch)

    def _key(self, key: str) -> str:
        return mark_key(self._prefix, key)


class RedisLeases:
    """See ``celeriac.contracts.board.Leases``."""

    def __init__(self, scripts: BoardScripts, prefix: str) -> None:
        self._scripts = scripts
        self._prefix = prefix + _LEASE_PREFIX

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        arguments = holder, _milliseconds(seconds), _milliseconds(LEASE_AHEAD)
        held, clock = await self._scripts.run(_HOLD, [self._prefix + name], arguments)
        return Tenure(bool(held), float(clock))

    async def release(self, name: str, holder: str) -> None:
        await self._scripts.run(_RELEASE, [self._prefix + name], (holder,))


class RedisSlots:
    """See ``celeriac.contracts.board.Slots``."""

    def __init__(self, scripts: BoardScripts, prefix: str) -> None:
        self._scripts = scripts
        self._prefix = prefix + _SLOT_PREFIX
        self.advance_one: Coalescer[tuple[str, float], bool] = Coalescer(self._advance_all, _BATCH)

    async def advance(self, entry: str, slot: float) -> bool:
        return await self.advance_one((entry, slot))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for step in (entries[start : start + _STEP] for start in range(0, len(entries), _STEP)):
            values = await self._scripts.run(_LAST, [self.key(entry) for entry in step], (SLOT_AHEAD,))
            found.update((entry, float(value)) for entry, value in zip(step, values, strict=True) if value)
        return found

    def key(self, entry: str) -> str:
        """Return the key of an entry's last slot."""
        return self._prefix + entry

    async def _advance_all(self, batch: Sequence[tuple[str, float]]) -> list[bool]:
        keys = [self.key(entry) for entry, _ in batch]
        slots = [slot for _, slot in batch]
        return [
            bool(set_) for set_ in await self._scripts.run(_ADVANCE, keys, (SLOT_AHEAD, SLOT_KEPT, *slots))
        ]


class RedisWindows:
    """See ``celeriac.contracts.board.Windows``."""

    def __init__(self, scripts: BoardScripts, prefix: str) -> None:
        self._scripts = scripts
        self._prefix = prefix + _WINDOW_PREFIX

    async def turn(self, name: str, most: int, window: float, wait: float = 0.0) -> float:
        return float(
            await self._scripts.run(_TURN, [self._prefix + name], (most, window, wait, LONGEST_WAIT))
        )


class RedisBoard:
    """The board of one Redis; see ``celeriac.contracts.board.Board``.

    :param prefix: put before every key.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        scripts = BoardScripts(link)
        self.sets = RedisSets(scripts, prefix)
        self.marks = RedisMarks(scripts, prefix)
        self.leases = RedisLeases(scripts, prefix)
        self.slots = RedisSlots(scripts, prefix)
        self.windows = RedisWindows(scripts, prefix)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self.marks.drain()
        await self.slots.advance_one.drain()


def mark_key(prefix: str, key: str) -> str:
    """Return the key of the marks that have one key."""
    return f"{prefix}{MARK_PREFIX}{key}"


def read_revision(text: bytes) -> int:
    """Return the revision; what is no number of ours is no revision."""
    return int(text) if len(text) <= _DIGITS and text.isdigit() else 0


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _read_members(names: Sequence[bytes]) -> Iterator[tuple[str, float]]:
    return ((_text(name), float(until)) for name, until in zip(names[::2], names[1::2], strict=True))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
