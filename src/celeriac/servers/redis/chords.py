"""Chords counted in Redis, key for key as Celery 5.7 counts them, so that a mixed fleet counts one chord together.

Rules: one script counts a part and notices that the chord is complete. The worker that holds the claim sends the body.
Celery 4 writes the size into the body, and writes neither ``.s`` nor the keys by which repeats are recognised; the
script makes up for them. Sources: Celery, Redis result backend: ``celery-taskset-meta-<group>`` with ``.j .t .s .d
.c``; ``.r`` is celeriac's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import CHORD_KEPT, Claim, EncodedPart, PartValue, Standing
from celeriac.errors import BackendError, WireError
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.offload import in_thread
from celeriac.servers.redis.large import LargeValues
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.protocol.connection import LARGE
from celeriac.wire.content import Codecs
from celeriac.wire.failure import Failure, read_failure
from celeriac.wire.names import group_key
from celeriac.wire.result import EXCEPTION_STATES, decode_stored, encode_part, take_long

_CLAIM = 30.0
"""Seconds that a claim holds unless it is renewed. If its worker died, a redelivered last part waits that long."""

_DONE = 300
"""Seconds for which Celery remembers that a chord is done."""

_BATCH = 500
_CLAIMED = b"claimed "

_OPEN = Script(
    """
-- KEYS: a chord's base key each. ARGV: seconds to live or 0, then the size of each.
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i] .. '.c') ~= 'done' then
    if ARGV[1] == '0' then redis.call('SET', KEYS[i] .. '.s', ARGV[i + 1])
    else redis.call('SET', KEYS[i] .. '.s', ARGV[i + 1], 'EX', ARGV[1]) end
  end
end
"""
)

COUNTING = """
-- Celery's client may send a chord again under its id: each run has a name, that of the first claim.
local function claimed(base, token)
  redis.call('SET', base .. '.r', token, 'NX', 'EX', 86400)
  return 'claimed ' .. redis.call('GET', base .. '.r')
end

-- Returns 'claimed' and the name of the run, 'open', or the milliseconds for which another worker has the claim.
local function count(seconds, claim, base, id, score, part, told, token)
  local parts, seen = base .. '.j', base .. '.d'
  local function keep()
    if redis.call('SADD', seen, id .. ':' .. score) == 1 then redis.call('ZADD', parts, score, part) end
  end
  if redis.call('GET', base .. '.c') == 'done' then
    if redis.call('EXISTS', base .. '.s') == 0 then
      -- Celery's client, sending the chord again, says so by the size alone, which it writes before the last part:
      -- those before it, when they end sooner, would be missed for ever. What is late itself goes with the mark.
      if told == '' then
        keep()
        local left = redis.call('PTTL', base .. '.c')
        redis.call('PEXPIRE', parts, left)
        redis.call('PEXPIRE', seen, left)
      end
      return 'open'
    end
    -- Celery 5.3's client leaves the mark.
    redis.call('DEL', base .. '.c')
  end
  keep()
  local ready = redis.call('ZCARD', parts)
  if seconds == '0' then
    redis.call('PERSIST', parts)
    redis.call('PERSIST', seen)
  else
    redis.call('EXPIRE', parts, seconds)
    redis.call('EXPIRE', seen, seconds)
    redis.call('EXPIRE', base .. '.s', seconds)
    redis.call('EXPIRE', base .. '.t', seconds)
    redis.call('EXPIRE', base, seconds)
  end
  local size = tonumber(redis.call('GET', base .. '.s') or told)
  if not size or ready ~= size + tonumber(redis.call('GET', base .. '.t') or 0) then return 'open' end
  if redis.call('SET', base .. '.c', token, 'NX', 'PX', claim) then return claimed(base, token) end
  -- The answer to an earlier try may have been lost.
  if redis.call('GET', base .. '.c') == token then return claimed(base, token) end
  return redis.call('PTTL', base .. '.c')
end
"""

_COUNT = Script(
    COUNTING
    + """
-- KEYS: the base key of each part's chord. ARGV: seconds to live or 0, milliseconds of a claim, then for each part:
-- task id, index or +inf, the part, the chord's size as the body has it or '', the token of a claim.
-- Returns what counting does for each, or an error.
local answers = {}
for i = 1, #KEYS do
  local at = 5 * i - 2
  local counted, answer = pcall(count, ARGV[1], ARGV[2], KEYS[i], unpack(ARGV, at, at + 4))
  if not counted and type(answer) == 'table' then answer = answer.err end
  answers[i] = answer
end
return answers
"""
)

_EXTEND = Script(
    """
-- KEYS: the chord's base key. ARGV: seconds to live or 0, then the id of each task that joins.
for i = 2, #ARGV do
  if redis.call('SADD', KEYS[1] .. '.d', 'joined:' .. ARGV[i]) == 1 then redis.call('INCR', KEYS[1] .. '.t') end
end
if ARGV[1] ~= '0' then
  redis.call('EXPIRE', KEYS[1] .. '.d', ARGV[1])
  redis.call('EXPIRE', KEYS[1] .. '.t', ARGV[1])
end
"""
)

_RENEW = Script(
    """
-- KEYS: the chord's base key. ARGV: token, milliseconds.
local held = redis.call('GET', KEYS[1] .. '.c')
if held == ARGV[1] then return redis.call('PEXPIRE', KEYS[1] .. '.c', ARGV[2]) end
if not held and redis.call('EXISTS', KEYS[1] .. '.j') == 1 then
  return redis.call('SET', KEYS[1] .. '.c', ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return 0
"""
)

_FINISH = Script(
    """
-- KEYS: the chord's base key. ARGV: token, seconds for which it is remembered as done, whether a part failed.
-- The parts of a chord that failed stay until they expire, as Celery leaves them for people to look at.
local held, base = redis.call('GET', KEYS[1] .. '.c'), KEYS[1]
if held and held ~= ARGV[1] then return 0 end
if ARGV[3] ~= '1' or redis.call('TTL', base .. '.j') < 0 then redis.call('DEL', base .. '.j') end
redis.call('DEL', base .. '.t', base .. '.s', base .. '.d', base .. '.r', base)
redis.call('SET', base .. '.c', 'done', 'EX', ARGV[2])
return 1
"""
)


class RedisChords:
    """See ``celeriac.contracts.backend.ChordStore``.

    :param prefix: put before every key.
    :param expires: seconds for which results are kept, and a chord that makes no progress if that is longer than
        ``CHORD_KEPT``; 0 keeps both.
    """

    def __init__(self, link: Link, codecs: Codecs, serializer: str, prefix: str, expires: int) -> None:
        self._link = link
        self._codecs = codecs
        self._serializer = serializer
        self._prefix = prefix
        self._expires = max(expires, round(CHORD_KEPT)) if expires else 0
        self._count: Coalescer[EncodedPart, Standing] = Coalescer(self._count_all, _BATCH, _weigh)
        self._large = LargeValues(link)

    def encode(self, part: Part) -> EncodedPart:
        payload = encode_part(part.task_id, part.state, part.value, self._codecs, self._serializer)
        return EncodedPart(part, payload, uuid4().hex)

    def terms(self) -> tuple[int, int]:
        """Return the seconds for which a chord is kept or 0, and the milliseconds of a claim, for the script."""
        return self._expires, round(_CLAIM * 1000)

    def arguments(self, encoded: EncodedPart) -> tuple[Any, ...]:
        """Return what the script takes for one part."""
        part = encoded.part
        index = "+inf" if part.index is None else part.index
        size = "" if part.size is None else part.size
        return part.task_id, index, encoded.payload, size, encoded.token

    async def open(self, openings: Sequence[Opening]) -> None:
        if openings:
            keys = [self.key(opening.chord_id) for opening in openings]
            await self._link.run(_OPEN, keys, [self._expires, *(opening.size for opening in openings)])

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        await self._link.run(_EXTEND, [self.key(chord_id)], [self._expires, *task_ids])

    async def count(self, encoded: EncodedPart) -> Standing:
        self._link.check_name(encoded.part.chord_id)
        if len(encoded.payload) < LARGE:
            return await self._count(encoded)
        name = f"the result of task[{encoded.part.task_id}] in a chord"
        return await self._large.send(len(encoded.payload), name, partial(self._count_alone, encoded))

    async def collect(self, claim: Claim) -> list[Any]:
        key = self.key(claim.chord_id)
        saved, raws = await self._link.calls([("GET", key), ("ZRANGE", key + ".j", 0, -1)])
        for answer in (saved, raws):
            if isinstance(answer, Exception):
                raise answer
        if take_long(raws, self._codecs):
            return await in_thread(partial(self._collected, saved, raws))
        return self._collected(saved, raws)

    async def renew(self, claim: Claim) -> bool:
        arguments = [claim.token, round(_CLAIM * 1000)]
        return bool(await self._link.run(_RENEW, [self.key(claim.chord_id)], arguments))

    async def finish(self, claim: Claim) -> None:
        await self._link.run(_FINISH, [self.key(claim.chord_id)], [claim.token, _DONE, int(claim.failed)])

    async def drain(self) -> None:
        """Return when all parts that were handed in are counted."""
        await self._count.drain()

    async def _count_alone(self, encoded: EncodedPart) -> Standing:
        (answer,) = await self._count_all([encoded])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _count_all(self, batch: Sequence[EncodedPart]) -> list[Standing | BaseException]:
        arguments: list[Any] = list(self.terms())
        for encoded in batch:
            arguments += self.arguments(encoded)
        keys = [self.key(encoded.part.chord_id) for encoded in batch]
        answers = await self._link.run(_COUNT, keys, arguments)
        return [self.standing(answer, encoded) for answer, encoded in zip(answers, batch, strict=True)]

    def standing(self, answer: Any, encoded: EncodedPart) -> Standing | BaseException:
        """Return what the script's answer means."""
        if isinstance(answer, bytes) and answer.startswith(_CLAIMED):
            run = answer.removeprefix(_CLAIMED).decode()
            return Standing(claim=Claim(encoded.part.chord_id, encoded.token, run))
        if answer == b"open":
            return Standing()
        if isinstance(answer, bytes):
            return self._link.refusal(answer.decode(errors="replace"))
        # Milliseconds; below 0 where the claim ended in this very moment.
        return Standing(held_for=max(answer, 1) / 1000)

    def key(self, chord_id: str) -> str:
        """Return the key with which all keys of a chord begin."""
        return self._prefix + group_key(chord_id)

    def _decode(self, raw: bytes) -> PartValue:
        try:
            _, task_id, state, value = self._read(raw)
        except (WireError, TypeError, ValueError) as error:
            raise BackendError(f"a chord's part cannot be read: {error!s:.200}: {raw!r:.200}") from error
        if state in EXCEPTION_STATES:
            value = read_failure(value) or Failure("Exception", [repr(value)], "builtins")
        return PartValue(task_id, state, value)

    def _read(self, raw: bytes) -> Any:
        return decode_stored(raw, self._codecs, self._serializer)

    def _collected(self, saved: bytes | None, raws: Sequence[bytes]) -> list[Any]:
        parts = [self._decode(raw) for raw in raws]
        return parts if saved is None else self._arrange(parts, saved)

    def _arrange(self, parts: list[PartValue], saved: bytes) -> list[Any]:
        """Put the parts into the shape of the groups that Celery saved."""
        by_id = {part.task_id: part for part in parts}
        try:
            _, members = self._read(saved)["result"]
            return [_arranged(member, by_id) for member in members]
        except (WireError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise BackendError(f"the saved group of a chord cannot be read: {saved!r:.200}") from error


def _weigh(encoded: EncodedPart) -> int:
    return len(encoded.payload)


def _arranged(member: Any, by_id: dict[str, PartValue]) -> Any:
    (task_id, _), members = member
    if members is None:
        return by_id[task_id]
    return [_arranged(one, by_id) for one in members]
