"""The failed list of a Redis broker: a hash by the tasks' ids, and an index by when they failed.

Rules: an entry is a line of JSON, and then what ``unacked`` had of the message, byte for byte: it is copied on the
server, however large it is. Whatever is added drops what is too much or too old, in the same step; both keys expire
with their last entry.
"""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Sequence

import msgspec

from celeriac.contracts.set_aside import DeadLetter, Failed
from celeriac.servers.redis.entries import parse_entry
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.settling import Settler, head_of
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import pack, unpack


class _Head(msgspec.Struct):
    queue: str
    reason: str


_read = msgspec.json.Decoder(_Head).decode


class RedisFailed:
    """The failed list of one broker; see ``celeriac.contracts.set_aside.FailedTasks``."""

    def __init__(self, link: Link, keys: Keys, settler: Settler) -> None:
        self._link = link
        self._keys = keys
        self._settler = settler

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        if limit <= 0:
            return []
        ids = await self._link.call("ZRANGE", self._keys.failed_index, offset, offset + limit - 1)
        return await self._open(ids)

    async def count(self) -> int:
        return int(await self._link.call("ZCARD", self._keys.failed_index))

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        return await self._open([_bytes(id) for id in ids])

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        tag = envelope.delivery_tag or str(uuid.uuid4())
        raw = pack(envelope, delivery_tag=tag, route=Route(queue, queue=queue))
        entry = b"[" + raw + self._keys.tail(queue).encode()
        await self._settler.fail(("", failed.id, head_of(queue, failed.reason) + entry))

    async def delete(self, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        names = [_bytes(id) for id in ids]
        _, deleted = await self._link.calls(
            [("ZREM", self._keys.failed_index, *names), ("HDEL", self._keys.failed, *names)]
        )
        if isinstance(deleted, Exception):
            raise deleted
        return int(deleted)

    async def _open(self, ids: Sequence[bytes]) -> builtins.list[DeadLetter]:
        if not ids:
            return []
        entries, scores = await self._link.calls(
            [("HMGET", self._keys.failed, *ids), ("ZMSCORE", self._keys.failed_index, *ids)]
        )
        for answer in (entries, scores):
            if isinstance(answer, Exception):
                raise answer
        return [
            _letter(id.decode(errors="surrogateescape"), entry, float(score or 0))
            for id, entry, score in zip(ids, entries, scores, strict=True)
            if entry is not None
        ]


def _bytes(id: str) -> bytes:
    return id.encode(errors="surrogateescape")


def _letter(id: str, value: bytes, died_at: float) -> DeadLetter:
    line, _, rest = value.partition(b"\n")
    try:
        head = _read(line)
    except msgspec.MsgspecError as error:
        head, rest = _Head("", f"unreadable entry: {error}"), b""
    entry = parse_entry(rest)
    envelope = unpack(entry.raw) if entry is not None else Unreadable(value, "no entry of a failed task")
    return DeadLetter(id=id, envelope=envelope, queue=head.queue, reason=head.reason, died_at=died_at)
