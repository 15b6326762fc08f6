"""Settles deliveries: acknowledges, requeues, parks or buries their messages.

Rules: settlements of the same kind share a round trip. The script that settles a message first checks that it is still
held by us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.contracts.board import Mark
from celeriac.contracts.set_aside import Cap, Failed
from celeriac.errors import DeliveryLost
from celeriac.servers.coalesce import Coalescer, fitting
from celeriac.servers.redis.board import UNMARK, mark_key
from celeriac.servers.redis.dead import write_letter
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.leases import Leases
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.scripts import ACK, BURY, FAIL, KEEPING, NOW, PARK, REQUEUE, TYPES
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import earlier_deliveries, mark_redelivered, unpack

_BATCH = 1000

Answers = Sequence[BaseException | None]

Keeping = tuple[str, str, bytes]
"""The tag of a message that is kept as failed, its task's id, and its head; with an empty tag the whole entry."""

_UNMARKING = Script(
    TYPES
    + NOW
    + KEEPING
    + UNMARK
    + r"""
-- KEYS: unacked, index, leases, dead, dead index, failed, failed index, then the key of each mark.
-- ARGV: how many failed messages are kept and for how many seconds; for each tag, verb ('ack', the letter that it is
-- buried as, or 'F' and the head of a kept one), a failed task's id, name and value of the mark. Returns 1 or 0 (lost).
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[6])
redis.call('ZCARD', KEYS[7])
local reply, kept = {}, false
for i = 1, #KEYS - 7 do
  local tag, verb, task, name, value = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  reply[i] = 0
  if redis.call('ZSCORE', KEYS[2], tag) then
    if string.byte(verb) == 70 then
      local entry = redis.call('HGET', KEYS[1], tag)
      if entry then keep(KEYS[6], KEYS[7], task, string.sub(verb, 2) .. entry) end
      kept = true
    elseif verb ~= 'ack' then
      redis.call('HSET', KEYS[4], tag, verb)
      redis.call('ZADD', KEYS[5], now, tag)
    end
    redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    unmark(KEYS[i + 7], name, value)
    reply[i] = 1
  end
end
if kept then trim(KEYS[6], KEYS[7], tonumber(ARGV[1]), tonumber(ARGV[2])) end
return reply
"""
)


class _Unmarking(msgspec.Struct, frozen=True):
    """A settlement that a mark goes with.

    :param task: the id of a task whose message is kept.
    """

    tag: str
    verb: str | bytes
    task: str
    mark: Mark


class Settler:
    """Settles the deliveries of one broker."""

    def __init__(self, link: Link, keys: Keys, leases: Leases, cap: Cap) -> None:
        self._link = link
        self._keys = keys
        self._leases = leases
        self._cap = cap
        self.ack: Coalescer[str, None] = Coalescer(self._ack, _BATCH)
        self.requeue: Coalescer[RedisReceipt, None] = Coalescer(self._requeue, _BATCH, _weigh)
        self.park: Coalescer[tuple[str, float], None] = Coalescer(self._park, _BATCH)
        self.unmark: Coalescer[_Unmarking, None] = Coalescer(self._unmark, _BATCH, lambda one: len(one.verb))
        self.bury: Coalescer[tuple[RedisReceipt, str], None] = Coalescer(
            self._bury, _BATCH, lambda burial: _weigh(burial[0])
        )
        self.fail: Coalescer[Keeping, None] = Coalescer(self._fail, _BATCH, lambda keeping: len(keeping[2]))

    def check_name(self, name: str) -> None:
        """Raise ``BrokerError`` for what Redis cannot have as a name."""
        self._link.check_name(name)

    async def drain(self) -> None:
        """Return when everything asked for so far was answered."""
        for coalescer in (self.ack, self.requeue, self.park, self.bury, self.fail, self.unmark):
            await coalescer.drain()

    async def _ack(self, tags: Sequence[str]) -> Answers:
        lost = await self._link.run(ACK, (self._keys.unacked, self._keys.index, self._keys.leases), tags)
        self._leases.release(tags)
        answers: list[BaseException | None] = [None] * len(tags)
        for position in lost:
            answers[position] = lost_delivery(tags[position])
        return answers

    async def give_back(self, receipts: Sequence[RedisReceipt]) -> None:
        """Put messages that never started back as they came, at the heads of their queues.

        A message that was lost meanwhile is left to its new worker. Raises ``BrokerError``.
        """
        while receipts:
            count = _count(receipts)
            # The last of them first: what came first is to be the next again.
            trip, receipts = receipts[-count:], receipts[:-count]
            for answer in await self._push_back(trip, [receipt.raw for receipt in trip]):
                if answer is not None and not isinstance(answer, DeliveryLost):
                    raise answer

    async def _requeue(self, receipts: Sequence[RedisReceipt]) -> Answers:
        return await self._push_back(receipts, [_mark_given_back(receipt.raw) for receipt in receipts])

    async def _push_back(self, receipts: Sequence[RedisReceipt], raws: Sequence[bytes]) -> Answers:
        # Each goes to the end that is taken from, so the newest goes first.
        order = sorted(range(len(receipts)), key=lambda position: receipts[position].tag, reverse=True)
        keys = [self._keys.unacked, self._keys.index, self._keys.leases]
        arguments: list[Any] = []
        for position in order:
            receipt = receipts[position]
            keys.append(self._keys.list_of_tag(receipt.queue, receipt.tag))
            arguments += receipt.tag, raws[position]
        reply = await self._link.run(REQUEUE, keys, arguments)
        answers: list[BaseException | None] = [None] * len(receipts)
        for position, answer in zip(order, reply, strict=True):
            answers[position] = self._judge(receipts[position].tag, answer)
        return answers

    async def _park(self, parkings: Sequence[tuple[str, float]]) -> Answers:
        keys = (self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due)
        arguments = [part for tag, due in parkings for part in (tag, f"parked-{tag}", due)]
        reply = await self._link.run(PARK, keys, arguments)
        return [self._judge(tag, answer) for (tag, _), answer in zip(parkings, reply, strict=True)]

    async def _bury(self, burials: Sequence[tuple[RedisReceipt, str]]) -> Answers:
        keys = (
            self._keys.unacked,
            self._keys.index,
            self._keys.leases,
            self._keys.dead,
            self._keys.dead_index,
        )
        arguments: list[Any] = []
        for receipt, reason in burials:
            arguments += receipt.tag, receipt.letter(reason)
        reply = await self._link.run(BURY, keys, arguments)
        return [self._judge(receipt.tag, answer) for (receipt, _), answer in zip(burials, reply, strict=True)]

    async def _fail(self, keepings: Sequence[Keeping]) -> Answers:
        keys = self._keys
        places = (keys.unacked, keys.index, keys.leases, keys.failed, keys.failed_index)
        arguments: list[Any] = [self._cap.most, self._cap.seconds]
        for keeping in keepings:
            arguments += keeping
        reply = await self._link.run(FAIL, places, arguments)
        return [self._judge(tag, answer) for (tag, _, _), answer in zip(keepings, reply, strict=True)]

    async def _unmark(self, batch: Sequence[_Unmarking]) -> Answers:
        known = self._keys
        keys = [known.unacked, known.index, known.leases, known.dead, known.dead_index]
        keys += known.failed, known.failed_index
        arguments: list[Any] = [self._cap.most, self._cap.seconds]
        for one in batch:
            keys.append(mark_key(known.prefix, one.mark.key))
            arguments += one.tag, one.verb, one.task, one.mark.name, one.mark.value
        reply = await self._link.run(_UNMARKING, keys, arguments)
        return [self._judge(one.tag, answer) for one, answer in zip(batch, reply, strict=True)]

    def _judge(self, tag: str, answer: int | bytes) -> BaseException | None:
        if isinstance(answer, bytes):
            return self._link.refusal(answer.decode(errors="replace"))
        if tag:
            self._leases.release((tag,))
        return None if answer else lost_delivery(tag)


class RedisReceipt(msgspec.Struct, eq=False):
    """The right to settle one delivery; see ``celeriac.contracts.broker.Receipt``."""

    _settler: Settler
    tag: str
    queue: str
    raw: bytes

    async def ack(self, *, surely: bool = False) -> None:
        await self._settler.ack(self.tag)

    async def requeue(self) -> None:
        await self._settler.requeue(self)

    async def park(self, due: float) -> None:
        if math.isnan(due):
            raise ValueError("a message cannot be parked until nan; give seconds since the epoch")
        await self._settler.park((self.tag, due))

    async def bury(self, reason: str) -> None:
        await self._settler.bury((self, reason))

    async def fail(self, failed: Failed) -> None:
        await self._settler.fail((self.tag, failed.id, head_of(self.queue, failed.reason)))

    async def settle_and_unmark(self, mark: Mark, kept: str | Failed | None = None) -> None:
        """See ``celeriac.contracts.broker.UnmarkingReceipt``."""
        self._settler.check_name(mark.key)
        verb, task = self.verb(kept)
        await self._settler.unmark(_Unmarking(self.tag, verb, task, mark))

    def verb(self, kept: str | Failed | None) -> tuple[str | bytes, str]:
        """Return the argument of the script that says what becomes of the message, and the id of a failed task."""
        if isinstance(kept, Failed):
            return b"F" + head_of(self.queue, kept.reason), kept.id
        return ("ack" if kept is None else self.letter(kept)), ""

    def letter(self, reason: str) -> bytes:
        """Return what the dead-letter list keeps of the message."""
        return write_letter(self.raw, self.queue, reason)


def head_of(queue: str, reason: str) -> bytes:
    """Return the line that an entry of the failed list begins with."""
    return msgspec.json.encode({"queue": queue, "reason": reason}) + b"\n"


def _weigh(receipt: RedisReceipt) -> int:
    return len(receipt.raw)


def _count(receipts: Sequence[RedisReceipt]) -> int:
    """Return how many of them go back in one trip, from the last on."""
    return fitting(map(_weigh, reversed(receipts)))


def _mark_given_back(raw: bytes) -> bytes:
    """Mark it as redelivered; the count tells apart what was given back on purpose."""
    envelope = unpack(raw)
    earlier = earlier_deliveries(envelope) if isinstance(envelope, Envelope) else 0
    return mark_redelivered(raw, deliveries=earlier)


def lost_delivery(tag: str) -> DeliveryLost:
    """Return the error that says that a receipt is void."""
    return DeliveryLost(f"delivery {tag} is not ours any more: its lease ended or it was settled before")
