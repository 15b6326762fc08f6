"""Results in a store that only Celery knows (django-db, MongoDB, S3, a database with tables of its own names).

Rules: Celery's own code of that store is called, in a few threads, each with connections of its own; what it raises is
told apart as an outage, which is waited for, or a refusal. Such stores tell nobody of new results, so followers look
again and again, ever more seldom.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec
from celery import Celery
from celery.app.task import Context as Request

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import Claim, EncodedPart, EncodedResult, PartValue, Replies, Standing
from celeriac.contracts.board import Board
from celeriac.errors import BackendError, BackendUnavailable, ConfigError, EncodeError, Finding
from celeriac.servers.url_parts import take_apart
from celeriac.wire.failure import describe, read_failure, rebuild
from celeriac.wire.preview import preview
from celeriac.wire.result import EXCEPTION_STATES, PENDING, ResultRecord, plain, read_date

T = TypeVar("T")

THREADS = 4
FIRST_LOOK, LONGEST_LOOK, GROWTH = 0.05, 2.0, 1.5
"""Seconds between two looks of a follower, at first and at most."""

_OUTAGES = (
    "OperationalError",
    "InterfaceError",
    "ConnectionFailure",
    "AutoReconnect",
    "ConnectionError",
    "Timeout",
)
"""Ends of the names of exceptions by which drivers say that a server is away."""


class EncodedMeta(EncodedResult, frozen=True):
    """What such a store writes: ``payload`` is the value, ``others`` are children, arguments and keyword arguments."""

    others: tuple[bytes, bytes, bytes]


class CeleryResults:
    """A result store of Celery's; see ``celeriac.contracts.backend.Backend``. It may be used by any event loop."""

    board: Board | None = None
    replies: Replies | None = None

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._threads: ThreadPoolExecutor | None = None
        self.chords = CeleryChords(self)

    def encode(self, record: ResultRecord) -> EncodedResult:
        others = self._lossy(record.children), self._lossy(record.args), self._lossy(record.kwargs)
        return EncodedMeta(record, self.payload(record.result, record.task_id), others)

    def payload(self, value: Any, task_id: str) -> bytes:
        """Return the bytes of a value or a ``Failure``: what crosses from a child process, and is written anew then.

        Raises ``EncodeError``.
        """
        try:
            written = self._app.backend.encode(plain(value))
        except Exception as error:
            raise EncodeError(f"result of task {task_id}: {error}") from error
        return written.encode() if isinstance(written, str) else bytes(written)

    def _lossy(self, value: Any) -> bytes:
        """Return the bytes of what stands beside a value; what cannot be written is its repr."""
        try:
            return self.payload(value, "")
        except EncodeError:
            return self.payload(preview(value), "")

    def value(self, payload: bytes) -> Any:
        """Return what the bytes stand for; a failure as Celery's dictionary."""
        return self._app.backend.decode(payload)

    async def store(self, encoded: EncodedResult) -> None:
        await self.call(lambda: self._store(encoded))

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return await self.call(lambda: [self._load(task_id) for task_id in task_ids])

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        yield self._records(task_ids)

    async def forget(self, task_ids: Sequence[str]) -> None:
        def forget() -> None:
            for task_id in task_ids:
                self._app.backend.forget(task_id)

        await self.call(forget)

    async def ping(self) -> str:
        await self.load(["celeriac-ping"])
        kind = type(self._app.backend)
        return f"Celery's {kind.__module__}.{kind.__qualname__}"

    async def examine(self) -> Sequence[Finding]:
        await self.load(["celeriac-ping"])
        return ()

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)

    async def call(self, work: Callable[[], T]) -> T:
        """Do this in a thread of the store's own. Raises ``BackendUnavailable`` or ``BackendError``."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="celeriac-results")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _tidy, work)
        except Exception as error:
            said = _about_url(error, self._app.conf.result_backend) or preview(str(error))
            text = f"the Celery app's result backend: {type(error).__name__}: {said}"
            if _is_outage(error, self._app):
                raise BackendUnavailable(text) from error
            raise BackendError(text) from error

    def _store(self, encoded: EncodedResult) -> None:
        record = encoded.record
        if isinstance(encoded, EncodedMeta):
            children, args, kwargs = map(self.value, encoded.others)
            record = msgspec.structs.replace(record, children=children, args=args, kwargs=kwargs)
        self._app.backend.store_result(
            record.task_id,
            self.value(encoded.payload),
            record.status,
            traceback=record.traceback,
            request=_request_of(record),
        )

    def _load(self, task_id: str) -> ResultRecord | None:
        meta = self._app.backend.get_task_meta(task_id, cache=False)
        return None if meta["status"] == PENDING else _record_of(task_id, meta)

    async def _records(self, task_ids: Collection[str]) -> AsyncIterator[ResultRecord]:
        pending = dict.fromkeys(task_ids)
        seen: dict[str, Any] = {}
        pause = FIRST_LOOK
        while pending:
            for record in await self.load(list(pending)):
                if record is None or seen.get(record.task_id) == (record.status, record.result):
                    continue
                seen[record.task_id] = record.status, record.result
                pause = FIRST_LOOK
                if record.ready:
                    del pending[record.task_id]
                yield record
            if pending:
                await asyncio.sleep(pause)
                pause = min(pause * GROWTH, LONGEST_LOOK)


class CeleryChords:
    """Chords as that store counts them, if it does; otherwise Celery sends ``celery.chord_unlock``, which looks."""

    def __init__(self, results: CeleryResults) -> None:
        self._results = results

    def encode(self, part: Part) -> EncodedPart:
        return EncodedPart(part, self._results.payload(part.value, part.task_id), "")

    async def open(self, openings: Sequence[Opening]) -> None:
        """Raise ``BackendError``: the app's own code makes its chords known."""
        raise BackendError("this result backend takes only chords that the Celery app starts itself")

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Do nothing: Celery counts what joins a chord as it sends it."""

    async def count(self, encoded: EncodedPart) -> Standing:
        """Let Celery's store count the part; it sends the body itself."""
        part, app = encoded.part, self._results._app  # noqa: SLF001 - two halves of one store
        request = Request(
            {"id": part.task_id, "group": part.chord_id, "chord": part.body, "group_index": part.index}
        )
        value = self._results.value(encoded.payload)
        if (failure := read_failure(value)) is not None and part.state in EXCEPTION_STATES:
            value = rebuild(failure)
        await self._results.call(lambda: app.backend.on_chord_part_return(request, part.state, value))
        return Standing()

    async def collect(self, claim: Claim) -> list[PartValue]:
        """Return nothing: no claim is ever given."""
        return []

    async def renew(self, claim: Claim) -> bool:
        """Return ``False``: no claim is ever given."""
        return False

    async def finish(self, claim: Claim) -> None:
        """Do nothing: no claim is ever given."""


def _about_url(error: Exception, url: object) -> str:
    """Return why a URL cannot be read; Python's own error for that would show a part of the password."""
    if isinstance(error, ValueError) and isinstance(url, str) and "@" in url:
        try:
            take_apart(url)
        except ConfigError as unfit:
            return str(unfit)
    return ""


def _request_of(record: ResultRecord) -> Request:
    """Return what Celery's stores read of a request."""
    request = Request(
        {
            "id": record.task_id,
            "task": record.name,
            "args": record.args,
            "kwargs": record.kwargs,
            "argsrepr": record.args_repr,
            "kwargsrepr": record.kwargs_repr,
            "hostname": record.worker,
            "retries": record.retries,
            "delivery_info": {"routing_key": record.queue},
            "group": record.group_id,
            "parent_id": record.parent_id,
            "stamps": record.stamps,
            "stamped_headers": list(record.stamps),
        }
    )
    request._children = [_AsTuple(child) for child in record.children or ()]  # noqa: SLF001 - it has no setter
    return request


class _AsTuple:
    """A child that is a tuple already."""

    def __init__(self, child: Any) -> None:
        self._child = child

    def as_tuple(self) -> Any:
        """Return it."""
        return self._child


def _record_of(task_id: str, meta: Mapping[str, Any]) -> ResultRecord:
    status, result = meta["status"], meta.get("result")
    if status in EXCEPTION_STATES:
        result = describe(result) if isinstance(result, BaseException) else read_failure(result) or result
    children = meta.get("children")
    return ResultRecord(
        task_id=task_id,
        status=status,
        result=result,
        traceback=meta.get("traceback"),
        children=list(children) if isinstance(children, list | tuple) else None,
        date_done=read_date(meta.get("date_done")),
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        name=meta.get("name") or meta.get("task_name"),
        args=meta.get("args") or meta.get("task_args"),
        kwargs=meta.get("kwargs") or meta.get("task_kwargs"),
        worker=meta.get("worker"),
        retries=meta.get("retries"),
        queue=meta.get("queue"),
    )


def _tidy(work: Callable[[], T]) -> T:
    """Do this, and leave no connection of Django's open that is unusable or too old, in this thread."""
    try:
        return work()
    finally:
        if (django := sys.modules.get("django.db")) is not None:
            with suppress(Exception):
                django.close_old_connections()


def _is_outage(error: Exception, app: Celery) -> bool:
    if isinstance(error, OSError):
        return True
    with suppress(Exception):
        if app.backend.exception_safe_to_retry(error):
            return True
    return any(kind.__name__.endswith(_OUTAGES) for kind in type(error).__mro__)
