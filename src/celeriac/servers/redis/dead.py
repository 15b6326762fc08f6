"""Messages that were set aside, in a hash and an index by time of death.

Rules: a letter holds the message byte for byte, as text where it is text; the index's score is when it died.
"""

from __future__ import annotations

import builtins
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.contracts.set_aside import DeadLetter
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.scripts import FAILED
from celeriac.wire.envelope import Unreadable
from celeriac.wire.frame import mark_redelivered, unpack

_REVIVE = Script(
    FAILED
    + r"""
-- KEYS: dead, dead index, then a list for each. ARGV: id, message for each. Returns how many were queued again.
local revived = 0
for i = 1, #ARGV / 2 do
  local id, raw = ARGV[2 * i - 1], ARGV[2 * i]
  if redis.call('HEXISTS', KEYS[1], id) == 1 and not failed(redis.pcall('LPUSH', KEYS[i + 2], raw)) then
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    revived = revived + 1
  end
end
return revived
"""
)


class _Letter(msgspec.Struct, omit_defaults=True):
    queue: str
    reason: str
    message: str | None = None
    message_base64: str | None = None

    @property
    def raw(self) -> bytes:
        if self.message is not None:
            return self.message.encode()
        return b64decode(self.message_base64 or "")


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(_Letter).decode


def write_letter(raw: bytes, queue: str, reason: str) -> bytes:
    """Return the entry of a message in the dead-letter hash."""
    reason = reason.encode(errors="backslashreplace").decode()
    try:
        return _write(_Letter(queue, reason, message=raw.decode()))
    except UnicodeDecodeError:
        return _write(_Letter(queue, reason, message_base64=b64encode(raw).decode()))


class RedisDeadLetters:
    """The dead-letter list of one broker; see ``celeriac.contracts.set_aside.DeadLetters``."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        if limit <= 0:
            return []
        scored = await self._link.call(
            "ZRANGE", self._keys.dead_index, offset, offset + limit - 1, "WITHSCORES"
        )
        times = {_text(tag): float(score) for tag, score in zip(scored[::2], scored[1::2], strict=True)}
        letters = await self._open(tuple(times))
        return [_describe(name, letter, times[name]) for name, letter in letters.items()]

    async def count(self) -> int:
        return int(await self._link.call("ZCARD", self._keys.dead_index))

    async def retry(self, ids: Sequence[str]) -> int:
        letters = await self._open(ids)
        if not letters:
            return 0
        keys = [self._keys.dead, self._keys.dead_index]
        arguments: builtins.list[Any] = []
        for name, letter in letters.items():
            if not letter.queue:
                continue  # the letter holds no message, or its queue is unknown
            keys.append(self._keys.list_of_tag(letter.queue, name))
            # A person asked for this retry, so a message that killed workers gets all its deliveries again.
            arguments += _bytes(name), mark_redelivered(letter.raw, deliveries=0)
        return int(await self._link.run(_REVIVE, keys, arguments))

    async def delete(self, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        tags = [_bytes(name) for name in ids]
        _, deleted = await self._link.calls(
            [("ZREM", self._keys.dead_index, *tags), ("HDEL", self._keys.dead, *tags)]
        )
        if isinstance(deleted, Exception):
            raise deleted
        return int(deleted)

    async def _open(self, ids: Sequence[str]) -> dict[str, _Letter]:
        if not ids:
            return {}
        entries = await self._link.call("HMGET", self._keys.dead, *map(_bytes, ids))
        return {name: _parse(entry) for name, entry in zip(ids, entries, strict=True) if entry is not None}


def _text(tag: bytes) -> str:
    return tag.decode(errors="surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _parse(entry: bytes) -> _Letter:
    try:
        return _read(entry)
    except msgspec.MsgspecError as error:
        return _Letter("", f"unreadable dead letter: {error}", message_base64=b64encode(entry).decode())


def _describe(name: str, letter: _Letter, died_at: float) -> DeadLetter:
    envelope = unpack(letter.raw) if letter.queue else Unreadable(letter.raw, letter.reason)
    return DeadLetter(id=name, envelope=envelope, queue=letter.queue, reason=letter.reason, died_at=died_at)
