"""A result store inside one process, for tests and for programs that need no other.

Rules: records are kept as the bytes that other stores keep; two stores share nothing; nothing outlives the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import msgspec

from celeriac.backend import EncodedResult
from celeriac.clock import Clock, SystemClock
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord, decode, encode


class _Kept(msgspec.Struct):
    status: str
    payload: bytes
    expires_at: float | None


class MemoryBackend:
    """Keeps results in the memory of this process. Use it from one event loop.

    :param codecs: the serializers that may be used.
    :param clock: tells when a result expires.
    :param expires: seconds until a record is dropped; ``None`` keeps it.
    """

    def __init__(
        self,
        codecs: Codecs,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        expires: float | None = 86400.0,
    ) -> None:
        self._codecs = codecs
        self._clock = clock
        self._expires = expires
        self._kept: dict[str, _Kept] = {}
        self._followers: dict[str, set[_Follower]] = {}

    def encode(self, record: ResultRecord) -> EncodedResult:
        return EncodedResult(record, encode(record, self._codecs, extended=True))

    async def store(self, encoded: EncodedResult) -> None:
        self._drop_expired()
        record = encoded.record
        before = self._kept.pop(record.task_id, None)
        if before is not None and before.status == SUCCESS and record.status != SUCCESS:
            self._kept[record.task_id] = before
            return
        expires_at = None if self._expires is None else self._clock.now() + self._expires
        self._kept[record.task_id] = _Kept(record.status, encoded.payload, expires_at)
        for follower in self._followers.get(record.task_id, ()):
            follower.feed(self._decode(record.task_id, encoded.payload))

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return [self._load(task_id) for task_id in task_ids]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        follower = _Follower(task_ids)
        for task_id in follower.pending:
            self._followers.setdefault(task_id, set()).add(follower)
        try:
            for record in map(self._load, task_ids):
                if record is not None:
                    follower.feed(record)
            yield follower.records()
        finally:
            self._unfollow(follower, task_ids)

    async def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._kept.pop(task_id, None)

    async def ping(self) -> str:
        return f"memory of this process, {len(self._kept)} results"

    async def close(self) -> None:
        return None

    def _load(self, task_id: str) -> ResultRecord | None:
        kept = self._kept.get(task_id)
        if kept is None or self._has_expired(kept):
            return None
        return self._decode(task_id, kept.payload)

    def _decode(self, task_id: str, payload: bytes) -> ResultRecord:
        return decode(payload, self._codecs, task_id)

    def _has_expired(self, kept: _Kept) -> bool:
        return kept.expires_at is not None and kept.expires_at <= self._clock.now()

    def _drop_expired(self) -> None:
        """Drop from the front: a record that is stored goes to the end, and all live equally long."""
        while self._kept:
            oldest = next(iter(self._kept))
            if not self._has_expired(self._kept[oldest]):
                return
            del self._kept[oldest]

    def _unfollow(self, follower: _Follower, task_ids: Collection[str]) -> None:
        for task_id in set(task_ids):
            followers = self._followers[task_id]
            followers.discard(follower)
            if not followers:
                del self._followers[task_id]


class _Follower:
    """One ``follow`` block: what it still waits for and what it has not handed out."""

    def __init__(self, task_ids: Collection[str]) -> None:
        self.pending = set(task_ids)
        self._unread: deque[ResultRecord] = deque()
        self._fed = asyncio.Event()

    def feed(self, record: ResultRecord) -> None:
        self._unread.append(record)
        self._fed.set()

    async def records(self) -> AsyncIterator[ResultRecord]:
        while self.pending or self._unread:
            if not self._unread:
                self._fed.clear()
                await self._fed.wait()
            record = self._unread.popleft()
            if record.ready:
                self.pending.discard(record.task_id)
            yield record
