"""No result store: what is stored is dropped, and every question for a result raises at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from celeriac.contracts.backend import ChordStore, EncodedResult, Replies
from celeriac.contracts.board import Board
from celeriac.contracts.server import Terms
from celeriac.errors import ConfigError, Finding, ResultMissing
from celeriac.servers.url_parts import scheme_of
from celeriac.wire.result import ResultRecord


class DisabledBackend:
    """The backend of an app that has none. Reading raises ``ResultMissing``; chords cannot be counted."""

    chords: ChordStore | None = None
    board: Board | None = None
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


class DisabledServer:
    """See ``celeriac.contracts.server.Server``."""

    @property
    def broker(self) -> NoReturn:
        """Raise ``ConfigError``."""
        raise ConfigError("disabled:// keeps no queues: name a broker")

    @property
    def board(self) -> NoReturn:
        """Raise ``ConfigError``."""
        raise ConfigError("disabled:// keeps nothing: name a broker")

    def results(self, url: str) -> DisabledBackend | None:
        """Return what keeps nothing."""
        return DisabledBackend() if scheme_of(url) == "disabled" else None

    async def close(self) -> None:
        """Nothing is open."""


def opener(url: str, terms: Terms) -> Callable[..., DisabledServer]:
    """Return what opens the server of nothing."""
    return lambda connections=None: DisabledServer()
