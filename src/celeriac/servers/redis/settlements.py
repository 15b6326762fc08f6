"""Lands decisions in one step: results, parts of chords, follow-ups, and the message.

Rules: nothing is done for a void receipt. If a part of a decision is refused, its message is not settled and comes
again. An error of one decision harms no other of its batch. The broker's keys and the results may be in two databases
of one server: a user who may use both can switch between them in a script.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from celeriac.contracts.backend import EncodedResult, Standing
from celeriac.contracts.board import Mark
from celeriac.contracts.broker import Receipt
from celeriac.contracts.server import Landing
from celeriac.contracts.set_aside import Cap
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.redis.board import UNMARK, mark_key
from celeriac.servers.redis.chords import COUNTING
from celeriac.servers.redis.delegate import Places, RedisDelegate
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.leases import Leases
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.parking import QUEUEING, Later, Parking
from celeriac.servers.redis.protocol.connection import LARGE
from celeriac.servers.redis.publishing import Publishing
from celeriac.servers.redis.results import STORING, RedisBackend
from celeriac.servers.redis.scripts import KEEPING
from celeriac.servers.redis.settling import RedisReceipt, lost_delivery
from celeriac.wire.result import SUCCESS

_BATCH = 500

_LINGER = 0.001
"""Seconds for which a decision that came while another one was landing waits for further ones. Its slot is free
already, so that only its caller waits. A decision that comes alone does not wait."""

_ACK_SUCCESS, _ACK_OTHER = "a1,0,0", "a0,0,0"
"""The shapes of endings that only store their result, as most do."""

_LAND = Script(
    STORING
    + COUNTING
    + QUEUEING
    + KEEPING
    + UNMARK
    + r"""
-- KEYS: unacked, index, leases, due, served, dead, dead index, failed, failed index, then for each ending its results,
-- chords and lists; last the keys of the marks.
-- ARGV: the broker's database, the results', milliseconds and seconds for which a result lives or 0, milliseconds of
-- a claim, how many failed messages are kept and for how many seconds, how many marks; then for each ending: tag (empty
-- where the message was settled before) and shape; if it is kept, the letter that it is buried as, or 'F' and the head
-- of a failed one, and that task's id; each result's record; for each part and message what counting and queueing take;
-- last for each mark the number of its ending, name and value.
-- A shape is a letter (a: acknowledge, h: hold, k: keep), for each result 1 if it is a success, else 0, and how many
-- parts and messages follow.
-- Returns for each ending 1, 0 (lost), how its chords stand, or an error after 'R' (results) or 'B' (broker).
local shapes = {}
local function read_shape(text)
  local verb, results, parts, messages = string.match(text, '^(%a)(%d*),(%d+),(%d+)$')
  local shape = {verb = verb, parts = tonumber(parts), messages = tonumber(messages), kept = verb == 'k' and 2 or 0}
  for i = 1, #results do shape[i] = string.sub(results, i, i) end
  shape.keys = #results + parts + messages
  shape.arguments = shape.kept + #results + 5 * (parts + messages)
  shapes[text] = shape
  return shape
end

local key, at, last = 9, 8, #ARGV - 3 * ARGV[8]
local endings, tags, kept = {}, {}, false
while at < last do
  local shape = shapes[ARGV[at + 2]] or read_shape(ARGV[at + 2])
  endings[#endings + 1] = {shape = shape, key = key, at = at + 2}
  tags[#tags + 1] = ARGV[at + 1]
  if shape.kept > 0 and string.byte(ARGV[at + 3]) == 70 then kept = true end
  key = key + shape.keys
  at = at + 2 + shape.arguments
end
if kept then
  -- A key of the wrong type ends the script here, before anything was changed.
  redis.call('HLEN', KEYS[8])
  redis.call('ZCARD', KEYS[9])
end

local reply = {}
local known = redis.call('ZMSCORE', KEYS[2], unpack(tags))
for i, tag in ipairs(tags) do known[i] = known[i] or tag == '' end
if ARGV[1] ~= ARGV[2] then redis.call('SELECT', ARGV[2]) end
for i, ending in ipairs(endings) do
  reply[i] = known[i] and 1 or 0
  if known[i] then
    local shape, key, at = ending.shape, ending.key, ending.at + ending.shape.kept
    for j = 1, #shape do
      local refused = store(KEYS[key + j], shape[j], ARGV[at + j], ARGV[3])
      if refused and reply[i] == 1 then reply[i] = 'R' .. refused end
    end
    local stands = shape.parts > 0 and {}
    key, at = key + #shape, at + #shape
    for j = 1, shape.parts do
      local counted, answer = pcall(count, ARGV[4], ARGV[5], KEYS[key + j], unpack(ARGV, at + 1, at + 5))
      at = at + 5
      if not counted then
        reply[i] = 'R' .. (type(answer) == 'table' and answer.err or tostring(answer))
        break
      end
      stands[j] = answer
      if answer ~= 'open' and reply[i] == 1 then reply[i] = stands end
    end
  end
end
if ARGV[1] ~= ARGV[2] then redis.call('SELECT', ARGV[1]) end

local ended = {}
for i, ending in ipairs(endings) do
  local shape = ending.shape
  if reply[i] == 1 and shape.verb ~= 'h' then
    local key = ending.key + shape.keys - shape.messages
    local at = ending.at + shape.arguments - 5 * shape.messages
    for j = 1, shape.messages do
      local told = {unpack(ARGV, at + 1, at + 5)}
      at = at + 5
      local refused = queue_or_park(KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[key + j], unpack(told))
      if refused and reply[i] == 1 then reply[i] = 'B' .. refused end
    end
    if reply[i] == 1 then
      if shape.kept > 0 then
        local letter, task = ARGV[ending.at + 1], ARGV[ending.at + 2]
        if string.byte(letter) == 70 then
          local entry = redis.call('HGET', KEYS[1], tags[i])
          if entry then keep(KEYS[8], KEYS[9], task, string.sub(letter, 2) .. entry) end
        else
          redis.call('HSET', KEYS[6], tags[i], letter)
          redis.call('ZADD', KEYS[7], now, tags[i])
        end
      end
      ended[#ended + 1] = tags[i]
    end
  end
end
if kept then trim(KEYS[8], KEYS[9], tonumber(ARGV[6]), tonumber(ARGV[7])) end
for i = 1, ARGV[8] do
  local told = last + 3 * i - 2
  local place = tonumber(ARGV[told])
  if reply[place] == 1 and endings[place].shape.verb ~= 'h' then
    unmark(KEYS[key + i], ARGV[told + 1], ARGV[told + 2])
  end
end
if #ended > 0 then
  redis.call('HDEL', KEYS[1], unpack(ended))
  redis.call('ZREM', KEYS[2], unpack(ended))
  redis.call('ZREM', KEYS[3], unpack(ended))
end
return reply
"""
)


class RedisSettlements:
    """See ``celeriac.contracts.server.Settlements``.

    :param is_behind: whether messages are held that wait for a slot: each decision is then soon followed by others.
    """

    limit = LARGE

    def __init__(
        self,
        link: Link,
        keys: Keys,
        leases: Leases,
        publishing: Publishing,
        parking: Parking,
        results: RedisBackend,
        cap: Cap,
        is_behind: Callable[[], bool],
    ) -> None:
        self._link = link
        self._keys = keys
        self._leases = leases
        self._publishing = publishing
        self._parking = parking
        self._results = results
        self._heads = (
            keys.unacked,
            keys.index,
            keys.leases,
            keys.due,
            keys.served,
            keys.dead,
            keys.dead_index,
            keys.failed,
            keys.failed_index,
        )
        terms = (
            link.target.db,
            results.database,
            results.expires_ms,
            *results.chords.terms(),
            cap.most,
            cap.seconds,
        )
        # As text: to pack a number takes hiredis five times as long.
        self._terms = [str(term) for term in terms]
        places = Places(
            (keys.unacked, keys.index, keys.leases),
            results.key(""),
            (link.target.db, results.database),
            results.expires_ms,
        )
        self._delegate = pickle.dumps(RedisDelegate(leases.server, places))
        self._land: Coalescer[_Ending, Sequence[Standing]] = Coalescer(
            self._land_all, _BATCH, attrgetter("weight"), _LINGER, is_behind
        )

    def land(self, landing: Landing) -> Awaitable[Sequence[Standing]]:
        if landing.messages or landing.buried is not None:
            return self._land_with_content(landing)
        return self._land.lead(_Ending(landing, (), landing.weight))

    async def acknowledge(self, receipt: Receipt) -> None:
        """See ``celeriac.contracts.server.EarlySettlements``."""
        await self._land(_Ending(Landing(receipt), (), 0), hurry=True)

    async def store(self, result: EncodedResult) -> None:
        """See ``celeriac.contracts.server.EarlySettlements``."""
        self._results.check_id(result.record.task_id)
        landing = Landing(None, [result], held=True, weight=len(result.payload))
        await self._land(_Ending(landing, (), landing.weight))

    def delegate(self, receipt: Receipt) -> tuple[bytes, str] | None:
        """See ``celeriac.contracts.server.Delegating``; with sentinels each command asks them for the master."""
        assert isinstance(receipt, RedisReceipt), "this receipt is another broker's"
        return None if self._link.target.master is not None else (self._delegate, receipt.tag)

    async def drain(self) -> None:
        """Return when everything asked for so far was answered."""
        await self._land.drain()

    async def _land_with_content(self, landing: Landing) -> Sequence[Standing]:
        """Land what sends messages, or buries its own, which the script gets whole."""
        later = await self._publishing.prepare(landing.messages) if landing.messages else ()
        weight = landing.weight
        if landing.buried is not None and isinstance(landing.receipt, RedisReceipt):
            weight += len(landing.receipt.raw)
        return await self._land.lead(_Ending(landing, later, weight))

    async def _land_all(self, endings: Sequence[_Ending]) -> Sequence[Sequence[Standing] | BaseException]:
        results = self._results
        keys = [*self._heads]
        arguments: list[Any] = [*self._terms, "0"]
        marks: list[tuple[int, Mark]] = []
        settled: list[str] = []
        for ending in endings:
            landing = ending.landing
            receipt = landing.receipt
            assert receipt is None or isinstance(receipt, RedisReceipt), "this receipt is another broker's"
            tag = "" if receipt is None else receipt.tag
            settled.append("" if landing.held else tag)
            is_more = (
                landing.parts or ending.later or landing.buried is not None or landing.failed is not None
            )
            if is_more or landing.held or len(landing.results) != 1:
                arguments.append(tag)
                self._write(ending, keys, arguments)
            else:
                (result,) = landing.results
                keys.append(results.key(result.record.task_id))
                arguments += (
                    tag,
                    _ACK_SUCCESS if result.record.status == SUCCESS else _ACK_OTHER,
                    result.payload,
                )
            if landing.mark is not None:
                marks.append((len(settled), landing.mark))
        if marks:
            arguments[len(self._terms)] = len(marks)
        for number, mark in marks:
            keys.append(mark_key(self._keys.prefix, mark.key))
            arguments += number, mark.name, mark.value
        self._link.check_names(keys)
        answers = await self._link.run(_LAND, keys, arguments)
        self._leases.release(tag for tag, answer in zip(settled, answers, strict=True) if answer == 1)
        return [
            () if answer == 1 else self._answer(ending.landing, answer)
            for ending, answer in zip(endings, answers, strict=True)
        ]

    def _write(self, ending: _Ending, keys: list[str], arguments: list[Any]) -> None:
        """Append what the script takes for an ending, after its tag."""
        landing, later, results = ending.landing, ending.later, self._results
        verb: tuple[Any, ...] = ()
        kept = landing.buried if landing.failed is None else landing.failed
        if kept is not None and not landing.held and isinstance(landing.receipt, RedisReceipt):
            verb = landing.receipt.verb(kept)
        states = ""
        payloads: list[bytes] = []
        for result in landing.results:
            states += "1" if result.record.status == SUCCESS else "0"
            payloads.append(result.payload)
            keys.append(results.key(result.record.task_id))
        letter = "h" if landing.held else "k" if verb else "a"
        arguments += f"{letter}{states},{len(landing.parts)},{len(later)}", *verb, *payloads
        for part in landing.parts:
            keys.append(results.chords.key(part.part.chord_id))
            arguments += results.chords.arguments(part)
        for message in later:
            keys.append(message.key)
            arguments += self._parking.arguments(message)

    def _answer(self, landing: Landing, answer: Any) -> Sequence[Standing] | BaseException:
        """Return what is told of an ending that did not just land."""
        if answer == 0:
            assert isinstance(landing.receipt, RedisReceipt), "what has no receipt cannot lose it"
            return lost_delivery(landing.receipt.tag)
        if isinstance(answer, bytes):
            text = answer[1:].decode(errors="replace")
            return self._results.refusal(text) if answer[:1] == b"R" else self._link.refusal(text)
        chords = self._results.chords
        standings: list[Standing] = []
        for part, stands in zip(landing.parts, answer, strict=True):
            standing = chords.standing(stands, part)
            if isinstance(standing, BaseException):
                return standing
            standings.append(standing)
        return standings


class _Ending(msgspec.Struct, frozen=True, gc=False):
    """A landing, its messages as the script takes them, and the bytes of all that the script gets."""

    landing: Landing
    later: Sequence[Later]
    weight: int
