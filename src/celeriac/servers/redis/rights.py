"""Tries the commands, keys and channels that clients and workers need on a Redis.

Rules: the trial writes only keys with names of their own, which expire and are deleted at once; other keys are tried
only with commands that change nothing. An error names the refused command, key or channel, so that an operator can
allow it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from celeriac.errors import CeleriacError, Finding
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Line, Link, Script
from celeriac.servers.redis.pushes import CHANGES, Pushes, PushListener

_LONGEST_PUSH = 2.0
"""Seconds within which a push that was asked for arrives."""

_TRY = """
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = ({...})[1]
    refused[#refused + 1] = answer.err
  end
end
"""

_WORK = Script(
    _TRY
    + """
-- KEYS: five unused ones. Returns the server's version, and each command that was refused, with the reason.
local hash, sorted, list, set, text = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
try('TIME')
try('HSET', hash, 'a', 1)
try('HGET', hash, 'a')
try('HMGET', hash, 'a')
try('HEXISTS', hash, 'a')
try('HLEN', hash)
try('HDEL', hash, 'a')
try('ZADD', sorted, 'GT', 1, 'a')
try('ZSCORE', sorted, 'a')
try('ZMSCORE', sorted, 'a')
try('ZCARD', sorted)
try('ZRANGE', sorted, 0, 0)
try('ZRANGEBYSCORE', sorted, 0, 0)
try('ZREVRANGEBYSCORE', sorted, 0, 0)
try('ZREMRANGEBYSCORE', sorted, 0, 0)
try('ZREM', sorted, 'a')
try('LPUSH', list, 'a')
try('RPUSH', list, 'a')
try('RPOP', list, 2)
try('SADD', set, 'a')
try('SMEMBERS', set)
try('SET', text, '1', 'EX', 60)
try('GET', text)
try('EXPIRE', text, 60)
try('TTL', text)
try('TYPE', text)
try('EXISTS', text)
try('DEL', hash, sorted, list, set, text)
return {redis.REDIS_VERSION or '', refused}
"""
)

_RESULTS = Script(
    _TRY
    + """
-- KEYS: five unused ones. Returns as above.
local text, sorted, set, hash, other = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
try('SET', text, '1', 'PX', 60000)
try('GET', text)
try('MGET', text)
try('PUBLISH', text, '1')
try('PEXPIRE', text, 60000)
try('EXPIRE', text, 60)
try('PTTL', text)
try('TTL', text)
try('TYPE', text)
try('INCR', text)
try('EXISTS', text)
try('ZADD', sorted, 1, 'a')
try('ZCARD', sorted)
try('ZRANGE', sorted, 0, 0)
try('SADD', set, 'a')
try('HSETNX', hash, 'a', 1)
try('HGET', hash, 'a')
try('DEL', text, sorted, set, hash, other)
return {redis.REDIS_VERSION or '', refused}
"""
)

_TOUCH = Script(
    """
-- KEYS: one that may be in use. ARGV: hash, sorted, list, set or text. Reads it and writes nothing to it.
local how = {hash = {'HDEL', KEYS[1], ''}, sorted = {'ZREM', KEYS[1], ''}, list = {'RPOP', KEYS[1], 0}}
local answer = redis.pcall(unpack(how[ARGV[1]] or {'EXISTS', KEYS[1]}))
return type(answer) == 'table' and answer.err or false
"""
)

_EVICTS_ALL = "allkeys-"
_EVICTS_SOME = "volatile-"


class RightsCheck:
    """Looks at one Redis for one broker or result store."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._name = uuid.uuid4().hex

    async def broker(self, keys: Keys, queues: Sequence[str]) -> list[Finding]:
        """Try what a broker needs that serves these queues. Raises ``BrokerError`` naming what is refused."""
        await self._plain()
        scratch = [f"{keys.prefix}celeriac.trial.{self._name}.{number}" for number in range(5)]
        await self._run(_WORK, scratch)
        await self._touch(_kinds(keys, queues))
        return [*await self._pushes(scratch[0]), *await self._evicts(), *self._lowered()]

    async def results(self, key: str, chord: str, marks: str) -> list[Finding]:
        """Try what a result store needs. Raises ``BackendError`` naming what is refused.

        :param key: a result's, with its id left out, which is its channel's too.
        :param chord: the same of a chord.
        :param marks: the same of a mark on the board.
        """
        await self._plain()
        text, name = f"{key}{self._name}", f"{chord}{self._name}"
        line = await self._link.open_line()
        try:
            await self._subscribe(line, text)
            await self._run(_RESULTS, [text, f"{name}.j", f"{name}.d", f"{marks}{self._name}", f"{name}.s"])
            if not await _arrives(line):
                raise self._link.refusal(
                    f"what is published on the channel {text} does not arrive: is pub/sub kept away by a proxy?"
                )
            await line.call("UNSUBSCRIBE", text)
        finally:
            await line.close()
        return [*await self._evicts(), *self._lowered()]

    async def _plain(self) -> None:
        """Try commands outside of scripts: a known script is run by another command than a new one."""
        for command in (("EVAL", "return 1", 0), ("PING",)):
            await self._link.call(*command)

    async def _run(self, script: Script, keys: Sequence[str]) -> None:
        _, refused = await self._link.run(script, keys, ())
        if not refused:
            return
        names = ", ".join(name.decode() for name in refused[::2])
        raise self._link.refusal(f"{refused[1].decode(errors='replace')} (commands: {names})")

    async def _touch(self, kinds: dict[str, str]) -> None:
        answers = await self._link.run_each(_TOUCH, [((key,), (kind,)) for key, kind in kinds.items()])
        for key, answer in zip(kinds, answers, strict=True):
            if isinstance(answer, CeleriacError):
                raise type(answer)(f"{answer} (key {key!r})")
            if answer and b"WRONGTYPE" not in answer:
                raise self._link.refusal(f"{answer.decode(errors='replace')} (key {key!r})")

    async def _subscribe(self, line: Line, channel: str) -> None:
        try:
            await line.call("SUBSCRIBE", channel)
        except CeleriacError as error:
            raise type(error)(f"{error} (SUBSCRIBE, channel {channel!r})") from error

    async def _pushes(self, key: str) -> list[Finding]:
        """Try whether the server pushes changes, which saves workers from polling."""
        why = ""
        pushes, told = Pushes(self._link), asyncio.Event()
        try:
            await pushes.join(PushListener(lambda *_: told.set(), lambda _: None, changes=True))
            for answer in await pushes.look([("EXISTS", key)]):
                if isinstance(answer, CeleriacError):
                    raise answer
            await self._link.calls([("SET", key, "1", "EX", 60), ("DEL", key)])
            async with asyncio.timeout(_LONGEST_PUSH):
                await told.wait()
        except TimeoutError:
            why = "its pushes do not arrive"
        except self._link.refused as error:
            if isinstance(error, self._link.unavailable):
                raise
            why = str(error)
        finally:
            await pushes.close()
        if not why:
            return []
        fix = "let this user run CLIENT TRACKING"
        if pushes.protocol == 2:
            fix += f" and CLIENT ID, and subscribe to {CHANGES}"
        return [
            Finding(f"the server does not tell of changes, so queues are polled, once a second: {why}", fix)
        ]

    async def _evicts(self) -> list[Finding]:
        """Return a finding if a full memory makes the server drop our keys; none if it does not tell its policy."""
        try:
            facts = await self._link.call("INFO", "memory")
        except self._link.refused as error:
            if isinstance(error, self._link.unavailable):
                raise
            return []
        policy = _fact(facts, "maxmemory_policy")
        if policy.startswith(_EVICTS_ALL):
            lost = "queues, and every message in them"
        elif policy.startswith(_EVICTS_SOME):
            lost = "results, revocations, and the marks by which what follows a task is published once"
        else:
            return []
        return [
            Finding(
                f"maxmemory-policy {policy}: when its memory is full, it drops {lost}", "set it to noeviction"
            )
        ]

    def _lowered(self) -> list[Finding]:
        security = self._link.target.security
        text = security.lowered() if security is not None else ""
        return [Finding(f"{self._link.target}: {text}", "take that option out of the URL")] if text else []


async def _arrives(line: Line) -> bool:
    """Return whether a push comes in time."""
    try:
        async with asyncio.timeout(_LONGEST_PUSH):
            while (await line.read())[0] != b"message":
                pass
    except TimeoutError:
        return False
    return True


def _kinds(keys: Keys, queues: Sequence[str]) -> dict[str, str]:
    """Return every key that a broker of these queues uses, and of which kind it is."""
    hashes = [keys.unacked, keys.dead]
    sorted_sets = [keys.index, keys.leases, keys.due, keys.dead_index, keys.served, *keys.revoked]
    lists = [key for queue in queues for key in keys.lists_of(queue).keys]
    sets = [name for queue in queues for name in (keys.binding(queue), keys.permanent_binding(queue))]
    others = [*sets, keys.revision, keys.once("trial", 0)]
    kinds = {"hash": hashes, "sorted": sorted_sets, "list": lists, "other": others}
    return {key: kind for kind, names in kinds.items() for key in names}


def _fact(facts: Any, name: str) -> str:
    lines = facts.decode(errors="replace").splitlines() if isinstance(facts, bytes) else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")
