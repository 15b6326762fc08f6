"""A result store inside one process, for tests and for programs that need no other.

Rules: records are kept as the bytes that other stores keep; two stores share nothing; nothing outlives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import msgspec

from celeriac.backend import EncodedResult
from celeriac.clock import Clock, SystemClock
from celeriac.following import Following
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
        self._following = Following()
        self._versions = count()

    def encode(self, record: ResultRecord) -> EncodedResult:
        return EncodedResult(record, encode(record, self._codecs, extended=True))

    async def store(self, encoded: EncodedResult) -> None:
        self._drop_expired()
        record = encoded.record
        before = self._kept.get(record.task_id)
        if before is not None and before.status == SUCCESS and record.status != SUCCESS:
            return
        self._kept.pop(record.task_id, None)
        expires_at = None if self._expires is None else self._clock.now() + self._expires
        self._kept[record.task_id] = _Kept(record.status, encoded.payload, expires_at)
        self._following.offer(
            record.task_id, next(self._versions), partial(self._decode, record.task_id, encoded.payload)
        )

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return [self._load(task_id) for task_id in task_ids]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            for task_id in dict.fromkeys(task_ids):
                kept = self._live(task_id)
                if kept is not None:
                    follower.offer(
                        task_id, next(self._versions), partial(self._decode, task_id, kept.payload)
                    )
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._kept.pop(task_id, None)

    async def ping(self) -> str:
        return f"memory of this process, {len(self._kept)} results"

    async def close(self) -> None:
        return None

    def _load(self, task_id: str) -> ResultRecord | None:
        kept = self._live(task_id)
        return None if kept is None else self._decode(task_id, kept.payload)

    def _live(self, task_id: str) -> _Kept | None:
        kept = self._kept.get(task_id)
        return None if kept is None or self._has_expired(kept) else kept

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
