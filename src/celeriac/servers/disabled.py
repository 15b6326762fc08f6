"""No result store: what is stored is dropped, and who asks is told so at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from celeriac.backend import ChordStore, Copies, EncodedResult, Replies
from celeriac.errors import ResultMissing
from celeriac.finding import Finding
from celeriac.wire.result import ResultRecord


class DisabledBackend:
    """The backend of an app that has none. Reading raises ``ResultMissing``; chords cannot be counted."""

    chords: ChordStore | None = None
    copies: Copies | None = None
    replies: Replies | None = None

    def encode(self, record: ResultRecord) -> EncodedResult:
        return EncodedResult(record, b"")

    async def store(self, encoded: EncodedResult) -> None:
        pass

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        _refuse(task_ids)

    def follow(self, task_ids: Collection[str]) -> AbstractAsyncContextManager[AsyncIterator[ResultRecord]]:
        _refuse(task_ids)

    async def forget(self, task_ids: Sequence[str]) -> None:
        pass

    async def ping(self) -> str:
        return "results are not kept: no backend is configured"

    async def examine(self) -> Sequence[Finding]:
        return ()

    async def close(self) -> None:
        pass


def _refuse(task_ids: Collection[str]) -> NoReturn:
    raise ResultMissing(
        f"no result is kept of task {', '.join(task_ids)}: the app has no backend; give it one, such as "
        "Celeriac(..., backend='redis://localhost')"
    )
