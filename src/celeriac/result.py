"""A handle on what a task returns.

Rules: asyncio code awaits (``await result``, ``wait``, ``info``, ``watch``, ``delete``); code without a loop calls
Celery's names (``get``, ``state``, ``ready``, ``children``, ``traceback``, ``forget``), which refuse to block a running
loop. A final record is remembered, so asking again costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from celeriac.backend import Backend
from celeriac.connections import ConnectionTable, RunBlocking
from celeriac.errors import (
    BackendError,
    CeleriacError,
    RemoteError,
    ResultMissing,
    ResultTimeout,
    TaskRevoked,
)
from celeriac.wire.failure import Failure, rebuild
from celeriac.wire.result import FAILURE, PENDING, REVOKED, SUCCESS, ResultRecord

R = TypeVar("R")
T = TypeVar("T")


class ResultStore(msgspec.Struct, frozen=True):
    """Where the results of an app are read, by code with a loop and code without."""

    connections: ConnectionTable
    run: RunBlocking

    @property
    def backend(self) -> Backend:
        """The running loop's backend."""
        return self.connections.current().backend


class Result(Generic[R]):
    """The result of one call.

    :param id: the call's id.
    :param task: the task's name, ``None`` where only the id is known.
    :param convert: makes the task's return type of the decoded value.
    :param ignored: the call was sent with ``ignore_result``.
    """

    __slots__ = ("_convert", "_ignored", "_record", "id", "store", "task")

    def __init__(
        self,
        task_id: str,
        store: ResultStore,
        *,
        task: str | None = None,
        convert: Callable[[Any], Any] | None = None,
        ignored: bool = False,
    ) -> None:
        self.id = task_id
        self.task = task
        self.store = store
        self._convert = convert
        self._ignored = ignored
        self._record: ResultRecord | None = None

    def __repr__(self) -> str:
        return f"<Result of {self}>"

    def __str__(self) -> str:
        return f"{self.task or 'task'}[{self.id}]"

    # --- for asyncio code

    def __await__(self) -> Generator[Any, None, R]:
        return self.wait().__await__()

    async def wait(self, timeout: float | None = None) -> R:
        """Return the task's value, or raise what the task raised.

        :param timeout: seconds to wait; ``None`` waits for ever, also for an id that was never sent.

        Raises ``ResultTimeout`` when it is not ready in time, ``TaskRevoked`` when it was revoked or expired,
        ``ResultMissing`` when its result is not kept, ``RemoteError`` for an exception of a class not imported here.
        """
        return self._value(self._record or await self._ending(timeout))

    async def info(self) -> ResultRecord:
        """Return what is known now: state, value or progress meta, children, traceback. ``PENDING`` is also unknown."""
        if self._record is not None:
            return self._record
        self.require_kept()
        [record] = await self.store.backend.load([self.id])
        return self.remember(record or ResultRecord(task_id=self.id))

    async def watch(self) -> AsyncIterator[ResultRecord]:
        """Yield each record as it is stored, the present one first; end with the final one.

        Records of progress and custom states come too; where they follow closely, some may be skipped.
        """
        self.require_kept()
        async with self.store.backend.follow([self.id]) as records:
            async for record in records:
                yield self.remember(record)

    async def delete(self) -> None:
        """Delete what is stored of the result. ``forget`` is the same for code without a loop."""
        self._record = None
        await self.store.backend.forget([self.id])

    # --- for code without an event loop

    def get(self, timeout: float | None = None) -> R:
        """Block until the task is done; otherwise as ``wait``."""
        if self._record is None:
            self._block("get()", "await result.wait()", self._ending, timeout)
        assert self._record is not None
        return self._value(self._record)

    def ready(self) -> bool:
        """Whether the task is done."""
        return self._now("ready()").ready

    def successful(self) -> bool:
        """Whether the task is done and returned a value."""
        return self._now("successful()").status == SUCCESS

    def failed(self) -> bool:
        """Whether the task is done and raised."""
        return self._now("failed()").status == FAILURE

    @property
    def state(self) -> str:
        """The state now; ``PENDING`` also for an id that nobody knows."""
        return self._now("state").status

    @property
    def children(self) -> list[Result[Any]]:
        """Results of the tasks that the task sent."""
        ids = (_child_id(child) for child in self._now("children").children or ())
        return [Result(task_id, self.store) for task_id in ids if task_id is not None]

    @property
    def traceback(self) -> str | None:
        """The traceback in the worker, of a task that failed."""
        traceback = self._now("traceback").traceback
        return traceback if isinstance(traceback, str) else None

    def forget(self) -> None:
        """Delete what is stored of the result."""
        self._block("forget()", "await result.delete()", self.delete)

    # --- how

    async def _ending(self, timeout: float | None) -> ResultRecord:
        """Wait for the final record."""
        self.require_kept()
        if timeout is not None and timeout <= 0:
            record = await self.info()
            if record.ready:
                return record
            raise self._timed_out(timeout, record.status)
        seen = PENDING
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline, self.store.backend.follow([self.id]) as records:
                async for record in records:
                    seen = record.status
                    if record.ready:
                        return self.remember(record)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise self._timed_out(timeout, seen) from error
        raise BackendError(f"the result store stopped telling of {self} while it was {seen}")

    def _timed_out(self, timeout: float | None, seen: str) -> ResultTimeout:
        hint = "; no worker has reported on it: does one take its queue?" if seen == PENDING else ""
        return ResultTimeout(f"{self} was not ready within {timeout:g} s: last seen {seen}{hint}")

    def require_kept(self) -> None:
        """Raise ``ResultMissing`` when nobody will ever know the result."""
        if self._ignored:
            raise ResultMissing(f"no result is kept of {self}: it was sent with ignore_result=True")

    def remember(self, record: ResultRecord) -> ResultRecord:
        """Keep a final record, so that nobody needs to ask again; return it."""
        if record.ready:
            self._record = record
        return record

    def _value(self, record: ResultRecord) -> R:
        if record.status != SUCCESS:
            raise error_of(record)
        value: R = self._convert(record.result) if self._convert else record.result
        return value

    def _now(self, name: str) -> ResultRecord:
        return self._record or self._block(name, "(await result.info())", self.info)

    def _block(self, name: str, instead: str, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        if _in_running_loop():
            raise CeleriacError(
                f"result.{name} would block the running event loop; use {instead} in asyncio code"
            )
        return self.store.run(work(*args))


async def as_completed(results: Iterable[Result[R]]) -> AsyncIterator[Result[R]]:
    """Yield the results in the order in which their tasks end; awaiting what is yielded takes no time.

    Raises ``ResultMissing`` for a result that is not kept, ``ValueError`` for results of more than one app.
    """
    waiting: dict[str, list[Result[R]]] = {}
    for result in results:
        result.require_kept()
        waiting.setdefault(result.id, []).append(result)
    stores = {id(same[0].store): same[0].store for same in waiting.values()}
    if len(stores) > 1:
        raise ValueError("as_completed() takes results of one app; iterate over each app's apart")
    for store in stores.values():
        async with store.backend.follow(list(waiting)) as records:
            async for record in records:
                if record.ready:
                    for result in waiting.pop(record.task_id, ()):
                        result.remember(record)
                        yield result


def error_of(record: ResultRecord) -> BaseException:
    """Return the exception that a task ended with, with the worker's traceback as a note."""
    if isinstance(record.result, Failure):
        error = rebuild(record.result)
    elif record.status == REVOKED:
        error = TaskRevoked("revoked")
    else:
        error = RemoteError(record.status, () if record.result is None else (record.result,))
    if isinstance(record.traceback, str) and record.traceback:
        error.add_note(f"In the worker:\n{record.traceback.rstrip()}")
    return error


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _child_id(child: Any) -> str | None:
    """Read the id in a Celery result tuple: ``[[id, parent], children]``, or ``[id, children]`` of old groups."""
    while isinstance(child, list | tuple) and child:
        child = child[0]
    return child if isinstance(child, str) else None
