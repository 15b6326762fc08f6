"""Parks messages that are due later when they are published, so that they take no place in a queue.

Rules: a message is parked only if a celeriac worker serves its queue at that moment, which workers note in a set: only
such a worker brings it back in time. Otherwise it goes to its queue, and the worker that takes it holds it. One step
decides and does this, by the server's clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import msgspec

from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.coalesce import Coalescer, by_size
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.wire.once import ONCE, ONCE_SETTLED

_BATCH = 1000
_TRIP_MESSAGES = 2000

QUEUEING = r"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function failed(answer) return type(answer) == 'table' and answer.err end

local served_now = {}
-- Parks a message that is not due where its queue is served, else queues it; returns what refused it, else nil.
local function queue_or_park(unacked, index, due, served, list, queue, at, tag, tail, raw)
  if served_now[queue] == nil then
    local ends = redis.call('ZSCORE', served, queue)
    served_now[queue] = ends and tonumber(ends) > now or false
  end
  if not served_now[queue] or tonumber(at) <= now then return failed(redis.pcall('LPUSH', list, raw)) or nil end
  local refused = failed(redis.pcall('HSET', unacked, tag, '[' .. raw .. tail))
  if refused then return refused end
  redis.call('ZADD', index, at, tag)
  redis.call('ZADD', due, at, tag)
  return nil
end
"""

_PARK_OR_QUEUE = Script(
    QUEUEING
    + r"""
-- KEYS: unacked, index, due, served, what says that this was done, then a list for each.
-- ARGV: seconds for which it says so or 0, then for each its queue, due time, tag, the end of its entry, message.
-- Returns 1 or an error for each, nothing where it was done before.
-- A key of the wrong type ends the script here, before anything was changed.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
if ARGV[1] ~= '0' and not redis.call('SET', KEYS[5], 1, 'NX', 'EX', ARGV[1]) then return {} end
local reply = {}
for i = 1, #KEYS - 5 do
  local message = {unpack(ARGV, 5 * i - 3, 5 * i + 1)}
  reply[i] = queue_or_park(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[i + 5], unpack(message)) or 1
  if ARGV[1] ~= '0' and reply[i] ~= 1 then redis.call('DEL', KEYS[5]) end
end
return reply
"""
)

_SERVE = Script(
    r"""
-- KEYS: served. ARGV: seconds, then queues.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[1]))
return 1
"""
)


class Later(msgspec.Struct, frozen=True):
    """A message that is due later, on its way to one queue.

    :param position: of the message in its batch.
    :param key: the queue's list for this priority.
    """

    position: int
    queue: str
    key: str
    priority: int
    due: float
    frame: bytes


Addition = tuple[str, Sequence[Later]]
"""A key, and the messages that are published once under it."""


class Parking:
    """Parks messages for one broker, and notes which queues are served."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._tags = uuid.uuid4().hex
        self._serials = count()
        self.add_once: Coalescer[Addition, bool] = Coalescer(self._add_once, _BATCH, _weigh)
        self.forget_once: Coalescer[str, Any] = Coalescer(self._forget_once, _BATCH)

    async def add(self, messages: Sequence[Later]) -> list[BaseException | None]:
        """Park or queue each; answer with what refused it."""
        answers: list[BaseException | None] = []
        for batch in _split(messages):
            try:
                answers += await self._add(batch)
            except BrokerError as error:
                if isinstance(error, BrokerUnavailable):
                    raise
                answers += [error] if len(batch) == 1 else await self._add_singly(batch)
        return answers

    async def _add_singly(self, messages: Sequence[Later]) -> list[BaseException | None]:
        """Add each by itself, since together they were refused."""
        answers: list[BaseException | None] = []
        for message in messages:
            answers += await self.add([message])
        return answers

    async def add_once_alone(self, addition: Addition) -> bool:
        """Do as ``add_once``, in a round trip of its own."""
        (answer,) = await self._add_once([addition])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _add_once(self, additions: Sequence[Addition]) -> list[bool | BaseException]:
        """Park or queue each addition unless its key is known; answer of each whether it was new, or its error."""
        batches = [
            (owner, self._keys.once(key, number), batch)
            for owner, (key, messages) in enumerate(additions)
            for number, batch in enumerate(_split(messages))
        ]
        replies: list[Any] = []
        for trip in _trips(batches):
            calls = [self._call(batch, key) for _, key, batch in trip]
            replies += await self._link.run_each(_PARK_OR_QUEUE, calls)
        answers: list[bool | BaseException] = [False] * len(additions)
        for (owner, _, _), reply in zip(batches, replies, strict=True):
            refusals = [reply] if isinstance(reply, Exception) else self._refusals(reply)
            found = next((refusal for refusal in refusals if refusal is not None), None)
            if not isinstance(answers[owner], BaseException):
                answers[owner] = found or answers[owner] or bool(reply)
        return answers

    async def _forget_once(self, keys: Sequence[str]) -> list[Any]:
        # Of what took several round trips the other keys end by themselves.
        return await self._link.calls([("EXPIRE", self._keys.once(key, 0), ONCE_SETTLED) for key in keys])

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self.add_once.drain()
        await self.forget_once.drain()

    async def serve(self, queues: Sequence[str], seconds: float) -> None:
        """Note for ``seconds`` that messages which are parked for these queues will be brought back."""
        if queues:
            await self._link.run(_SERVE, (self._keys.served,), (seconds, *queues))

    async def leave(self, queues: Sequence[str]) -> None:
        """Remove that note; another worker that serves these queues writes its own again."""
        if queues:
            await self._link.call("ZREM", self._keys.served, *queues)

    async def _add(self, messages: Sequence[Later]) -> list[BaseException | None]:
        return self._refusals(await self._link.run(_PARK_OR_QUEUE, *self._call(messages)))

    def _call(
        self, messages: Sequence[Later], once: str | None = None
    ) -> tuple[Sequence[str], Sequence[Any]]:
        """Return the script's keys and arguments."""
        known = self._keys
        keys = [known.unacked, known.index, known.due, known.served, once or known.served]
        arguments: list[str | float | bytes] = [ONCE if once else 0]
        for message in messages:
            keys.append(message.key)
            arguments += self.arguments(message)
        return keys, arguments

    def arguments(self, message: Later) -> tuple[Any, ...]:
        """Return what the scripts take for one message besides its list."""
        step = self._keys.step(message.priority)
        tag = f"parked-{self._tags}.{next(self._serials):012d}:{step}"
        return message.queue, message.due, tag, self._keys.tail(message.queue), message.frame

    def _refusals(self, reply: Sequence[int | bytes]) -> list[BaseException | None]:
        return [
            self._link.refusal(answer.decode(errors="replace")) if isinstance(answer, bytes) else None
            for answer in reply
        ]


def _weigh(addition: Addition) -> int:
    return sum(len(message.frame) for message in addition[1])


def _trips(
    batches: Sequence[tuple[int, str, Sequence[Later]]],
) -> Iterator[list[tuple[int, str, Sequence[Later]]]]:
    """Yield the batches of each round trip: many small ones, of large ones few, which take the event loop a while."""
    trip: list[tuple[int, str, Sequence[Later]]] = []
    size = 0
    for batch in batches:
        trip.append(batch)
        size += len(batch[2])
        if size >= _TRIP_MESSAGES:
            yield trip
            trip, size = [], 0
    if trip:
        yield trip


def _split(messages: Sequence[Later]) -> Iterator[Sequence[Later]]:
    return by_size(messages, lambda message: len(message.frame), count=_BATCH)
