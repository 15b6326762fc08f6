"""The failed list of one process's memory."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Sequence
from itertools import islice

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.set_aside import Cap, DeadLetter, Failed
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack, unpack


class _Kept(msgspec.Struct, frozen=True):
    raw: bytes
    queue: str
    reason: str
    at: float


class MemoryFailed:
    """See ``celeriac.contracts.set_aside.FailedTasks``."""

    def __init__(self, clock: Clock, cap: Cap) -> None:
        self._clock = clock
        self._cap = cap
        self._kept: dict[str, _Kept] = {}

    def keep(self, failed: Failed, raw: bytes, queue: str) -> None:
        """Keep a message."""
        self._kept.pop(failed.id, None)
        self._kept[failed.id] = _Kept(raw, queue, failed.reason, self._clock.now())
        while len(self._kept) > self._cap.most:
            del self._kept[next(iter(self._kept))]
        self._drop_old()

    async def list(self, limit: int = 100, offset: int = 0) -> builtins.list[DeadLetter]:
        self._drop_old()
        return [_letter(id, kept) for id, kept in islice(self._kept.items(), offset, offset + max(0, limit))]

    async def count(self) -> int:
        self._drop_old()
        return len(self._kept)

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        self._drop_old()
        return [_letter(id, self._kept[id]) for id in dict.fromkeys(ids) if id in self._kept]

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        tag = envelope.delivery_tag or str(uuid.uuid4())
        self.keep(failed, pack(envelope, delivery_tag=tag, route=Route(queue, queue=queue)), queue)

    async def delete(self, ids: Sequence[str]) -> int:
        return sum(self._kept.pop(id, None) is not None for id in dict.fromkeys(ids))

    def _drop_old(self) -> None:
        oldest = self._clock.now() - self._cap.seconds
        while self._kept and (first := next(iter(self._kept))) and self._kept[first].at < oldest:
            del self._kept[first]


def _letter(id: str, kept: _Kept) -> DeadLetter:
    return DeadLetter(id=id, envelope=unpack(kept.raw), queue=kept.queue, reason=kept.reason, died_at=kept.at)
