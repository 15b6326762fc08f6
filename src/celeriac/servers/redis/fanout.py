"""Fanout over publish and subscribe: sends to all listeners, and asks them.

Rules: channels, bindings and lists of answers are kombu's (``/<db>.<exchange>/<key>``), so that Celery's workers and
monitors receive our messages, and we theirs. All listeners share the broker's subscribed connection. The step that
makes a list of answers also sets its expiry, since the process that asked may have died meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from celeriac.clock import set_within
from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError
from celeriac.retry import Backoff
from celeriac.servers.inbox import Inbox, answers_of, hears
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.pushes import Pushes, PushListener
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import pack, unpack
from celeriac.wire.names import binding_member

_log = logging.getLogger("celeriac.broker.redis")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries to listen again after the connection was cut."""

_CHECK = 15.0
"""Seconds between questions whether the connection stands."""

_BINDING_LASTS = 3_600_000
"""Milliseconds after which kombu sweeps a table of bindings that nobody wrote to; its own least time."""

_ANSWER = Script(
    r"""
-- KEYS: bindings, list of answers. ARGV: the asker's binding, answer, milliseconds to keep it.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
)

_ASK = Script(
    r"""
-- KEYS: bindings, deadlines of bindings. ARGV: the asker's binding, exchange, milliseconds, channel, question.
redis.call('SADD', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', now + ARGV[3]), ARGV[2])
return redis.call('PUBLISH', ARGV[4], ARGV[5])
"""
)

_UNBIND = Script(
    r"""
-- KEYS: bindings, deadlines of bindings, list of answers. ARGV: the asker's binding, exchange.
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[2]) end
return 1
"""
)


class RedisFanout:
    """Listeners on one Redis; see ``celeriac.contracts.fanout.Fanout``."""

    def __init__(self, link: Link, keys: Keys, pushes: Pushes) -> None:
        self._link = link
        self._keys = keys
        self._pushes = pushes
        self._listening: set[_Listening] = set()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int:
        channel = self._channel(exchange, key)
        return int(await self._link.call("PUBLISH", channel, _frame(envelope, exchange.name, key)))

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        inbox = Inbox()
        wanted = None if self._link.target.channel_per_key else tuple(bindings)
        listening = _Listening(self._pushes, inbox, *self._names(bindings), wanted)
        await listening.open()
        self._listening.add(listening)
        try:
            yield inbox
        finally:
            self._listening.discard(listening)
            await listening.close()

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        answer = _frame(envelope, reply_to.exchange, reply_to.key)
        keys = self._keys.binding(reply_to.exchange), self._keys.prefix + reply_to.queue
        return bool(await self._link.run(_ANSWER, keys, (_member(reply_to), answer, int(keep * 1000))))

    @asynccontextmanager
    async def ask(
        self,
        exchange: Exchange,
        envelope: Envelope,
        reply_to: ReplyTo,
        *,
        key: str = "",
        expect: int | None = None,
    ) -> AsyncIterator[_Answers]:
        tables = self._keys.binding(reply_to.exchange), self._keys.binding_deadlines
        answers, name = self._keys.prefix + reply_to.queue, reply_to.exchange
        question = (self._channel(exchange, key), _frame(envelope, exchange.name, key))
        member = _member(reply_to)
        try:
            asked = int(await self._link.run(_ASK, tables, (member, name, _BINDING_LASTS, *question)))
            yield _Answers(self._link, answers, asked, answers_of(expect, asked) or 0)
        finally:
            with suppress(BrokerError):  # the keys that are left expire by themselves
                await asyncio.shield(self._link.run(_UNBIND, (*tables, answers), (member, name)))

    async def close(self) -> None:
        """End all listening. Idempotent."""
        for listening in tuple(self._listening):
            await listening.close()

    def _channel(self, exchange: Exchange, key: str) -> str:
        self._link.check_name(exchange.name + key)
        target = self._link.target
        place = f"{self._keys.prefix}{target.channel_prefix}{exchange.name}"
        return f"{place}/{key}" if exchange.by_key and key and target.channel_per_key else place

    def _names(self, bindings: Sequence[Binding]) -> tuple[list[str], list[str]]:
        """Return the channels and the patterns to subscribe to."""
        channels: list[str] = []
        patterns: list[str] = []
        for binding in bindings:
            per_key = binding.exchange.by_key and self._link.target.channel_per_key
            if per_key and binding.key.endswith("#"):
                stem = f"{self._channel(binding.exchange, '')}/{binding.key[:-1]}"
                patterns.append(re.sub(r"([*?\[\]\\])", r"\\\1", stem) + "*")
            else:
                channels.append(self._channel(binding.exchange, binding.key))
        return list(dict.fromkeys(channels)), list(dict.fromkeys(patterns))


class _Answers:
    """The answers of one ``ask`` block.

    :param left: answers after which it ends.
    """

    def __init__(self, link: Link, name: str, listeners: int, left: int) -> None:
        self.listeners: int | None = listeners
        self._link = link
        self._name = name
        self._left = left

    def __aiter__(self) -> _Answers:
        return self

    async def __anext__(self) -> Envelope | Unreadable:
        while self._left:
            popped = await self._link.call("BRPOP", self._name, self._link.timeout / 2)
            if popped is not None:
                self._left -= 1
                return unpack(popped[1])
        raise StopAsyncIteration


class _Listening:
    """One ``listen`` block: it joins again whenever the connection was cut.

    :param wanted: the bindings by which messages are chosen here; ``None`` where the channels choose them.
    """

    def __init__(
        self,
        pushes: Pushes,
        inbox: Inbox,
        channels: Sequence[str],
        patterns: Sequence[str],
        wanted: Sequence[Binding] | None,
    ) -> None:
        self._wanted = wanted
        self._pushes = pushes
        self._inbox = inbox
        self._listener = PushListener(self._hear, self._lose, channels, patterns)
        self._cut = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._pushes.join(self._listener)
        self._tending = asyncio.create_task(self._tend(), name="celeriac-fanout")

    async def close(self) -> None:
        """Stop listening, and raise ``BrokerUnavailable`` in the task that reads."""
        tending, self._tending = self._tending, None
        if tending is not None:
            tending.cancel()
            await asyncio.wait([tending])
            await self._pushes.leave(self._listener)
            self._inbox.fail(
                BrokerUnavailable("nobody listens any more: the block was left, or the broker closed")
            )

    def _hear(self, channel: bytes, content: Any) -> None:
        message = unpack(content)
        if self._wanted is None or isinstance(message, Unreadable) or self._is_wanted(message, self._wanted):
            self._inbox.put(message)

    def _is_wanted(self, message: Envelope, bindings: Sequence[Binding]) -> bool:
        exchange, key = message.exchange or "", message.routing_key or ""
        return any(hears(binding, exchange, key) for binding in bindings)

    def _lose(self, error: CeleriacError) -> None:
        self._inbox.cuts += 1
        self._cut.set()

    async def _tend(self) -> None:
        try:
            while True:
                await set_within(self._cut, _CHECK)
                if self._cut.is_set():
                    await self._join_again()
                with suppress(BrokerUnavailable):
                    await self._pushes.check()
        except BrokerError as error:
            self._inbox.fail(error)

    async def _join_again(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            self._cut.clear()
            try:
                return await self._pushes.join(self._listener)
            except BrokerUnavailable as error:
                pause = backoff.pause()
                _log.debug("nothing is heard, again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)


def _frame(envelope: Envelope, exchange: str, key: str) -> bytes:
    return pack(envelope, delivery_tag=str(uuid.uuid4()), route=Route(key, exchange=exchange))


def _member(reply_to: ReplyTo) -> str:
    return binding_member(reply_to.key, "", reply_to.queue)
