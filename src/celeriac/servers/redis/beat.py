"""Publishes the messages of periodic tasks: one script compares an entry's last slot, and queues.

Rules: a slot is noted when all of its messages are queued or parked. What is refused leaves the last slot as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.contracts.board import SLOT_AHEAD, SLOT_KEPT
from celeriac.errors import BrokerUnavailable, CeleriacError
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.redis.board import KNOWN_SLOT, START, BoardScripts, RedisSlots
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.parking import QUEUEING, Later, Parking
from celeriac.servers.redis.publishing import Publishing
from celeriac.wire.envelope import Envelope, Route

_BATCH = 500
"""Ticks that go in one round trip."""

_TICK = Script(
    START
    + QUEUEING
    + KNOWN_SLOT
    + r"""
-- KEYS: unacked, index, due, served, the entry's last slot, then a list for each message.
-- ARGV: slot, seconds that one may be ahead, seconds to keep it, then for each message its queue, due time, tag, the
-- end of its entry, message. Returns 1, 0 where the slot was ticked before, or the error that refused a message.
-- A key of the wrong type ends the script here, before anything was changed.
redis.call('HLEN', KEYS[1])
for i = 2, 4 do redis.call('ZCARD', KEYS[i]) end
local before = last_slot(KEYS[5], ARGV[2])
if not advance(KEYS[5], ARGV[2], ARGV[3], ARGV[1]) then return {0, aside} end
for i = 1, #KEYS - 5 do
  local message = {unpack(ARGV, 5 * i - 1, 5 * i + 3)}
  local refused = queue_or_park(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[i + 5], unpack(message))
  if refused then
    redis.call('DEL', KEYS[5])
    if before then redis.pcall('SET', KEYS[5], before, 'EX', ARGV[3]) end
    return {refused, aside}
  end
end
return {1, aside}
"""
)


class _Tick(msgspec.Struct, frozen=True):
    entry: str
    slot: float
    messages: Sequence[tuple[Envelope, Route]]


class RedisBeat:
    """See ``celeriac.contracts.broker.Beat``."""

    def __init__(
        self, link: Link, keys: Keys, publishing: Publishing, parking: Parking, slots: RedisSlots
    ) -> None:
        self._link = link
        self._keys = keys
        self._publishing = publishing
        self._parking = parking
        self._slots = slots
        self._scripts = BoardScripts(link)
        self._tick: Coalescer[_Tick, bool] = Coalescer(self._tick_all, _BATCH, _weigh)

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        self._link.check_name(self._slots.key(entry))
        return await self._tick(_Tick(entry, slot, messages))

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return await self._slots.last(entries)

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._tick.drain()

    async def _tick_all(self, batch: Sequence[_Tick]) -> list[bool | BaseException]:
        answers: list[bool | BaseException] = [False] * len(batch)
        calls: dict[int, tuple[Sequence[str], Sequence[Any]]] = {}
        for place, tick in enumerate(batch):
            try:
                calls[place] = self._call(tick, await self._publishing.prepare_small(tick.messages))
            except BrokerUnavailable:
                raise
            except CeleriacError as error:
                answers[place] = error
        replies = await self._link.run_each(_TICK, list(calls.values()))
        for place, reply in zip(calls, replies, strict=True):
            answers[place] = self._answer(reply)
        return answers

    def _call(self, tick: _Tick, messages: Sequence[Later]) -> tuple[Sequence[str], Sequence[Any]]:
        known = self._keys
        keys = [known.unacked, known.index, known.due, known.served, self._slots.key(tick.entry)]
        arguments: list[Any] = [tick.slot, SLOT_AHEAD, SLOT_KEPT]
        for message in messages:
            keys.append(message.key)
            arguments += self._parking.arguments(message)
        return keys, arguments

    def _answer(self, reply: Any) -> bool | BaseException:
        if isinstance(reply, Exception):
            return reply
        answer, aside = reply
        self._scripts.warn(aside)
        return (
            self._link.refusal(answer.decode(errors="replace")) if isinstance(answer, bytes) else bool(answer)
        )


def _weigh(tick: _Tick) -> int:
    return sum(len(envelope.body) for envelope, _ in tick.messages)
