"""The contract of a result store.

Rules: encoding comes before effects (``encode`` raises, ``store`` does not choke on a value); a stored SUCCESS is never
overwritten by another state; driver errors are translated into ``BackendUnavailable`` or ``BackendError``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from celeriac.wire.result import ResultRecord


class EncodedResult(msgspec.Struct, frozen=True):
    """A record whose value is already bytes; made by the backend that stores it.

    :param payload: the whole meta object for key-value stores, the encoded value for tables.
    """

    record: ResultRecord
    payload: bytes


class Backend(Protocol):
    """A place that keeps results. Bound to the event loop that first used it."""

    def encode(self, record: ResultRecord) -> EncodedResult:
        """Make the bytes. Raises ``EncodeError`` naming what cannot be written."""
        ...

    async def store(self, encoded: EncodedResult) -> None:
        """Keep the record and tell those who wait. Concurrent calls share round trips, in the order of the calls."""
        ...

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        """Return what is stored for each id, ``None`` where nothing is; one round trip."""
        ...

    def follow(self, task_ids: Collection[str]) -> AbstractAsyncContextManager[AsyncIterator[ResultRecord]]:
        """Yield every record of these tasks as it is stored, the present one first; end when all are ready.

        The subscription is made before the check, so nothing is missed, and is dropped on leaving the block. All
        waits of a process share one connection. An id that never gets a record is waited for without end.
        """
        ...

    async def forget(self, task_ids: Sequence[str]) -> None:
        """Delete what is stored."""
        ...

    async def ping(self) -> str:
        """Connect and return one line that says what answered (for ``celeriac doctor``)."""
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...
