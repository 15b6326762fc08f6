"""A handle on what a task returns.

Rules: asyncio code awaits (``await result``, ``wait``, ``info``, ``watch``, ``delete``, ``cancel``); code without a
loop calls Celery's names (``get``, ``state``, ``ready``, ``children``, ``traceback``, ``forget``, ``revoke``), which
refuse to block a running loop. A final record is remembered, so asking again costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from celeriac.canvas.nodes import Node
from celeriac.client.result_store import ResultStore
from celeriac.client.revoking import revoke
from celeriac.errors import (
    BackendError,
    CeleriacError,
    RemoteError,
    ResultMissing,
    ResultTimeout,
    TaskRevoked,
)
from celeriac.porting import RESULT, explains
from celeriac.quantities import patience
from celeriac.wire.failure import Failure, rebuild
from celeriac.wire.preview import counted
from celeriac.wire.result import FAILURE, PENDING, REVOKED, SUCCESS, ResultRecord

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


@explains("a result", RESULT)
class Result(Generic[R_co]):
    """The result of one call.

    :param id: the call's id.
    :param task: the task's name, ``None`` where only the id is known.
    :param convert: makes the task's return type of the decoded value.
    :param ignored: the call was sent with ``ignore_result``.
    :param parent: the result of what ran before it, in a workflow that was sent here.
    """

    __slots__ = ("_convert", "_ignored", "_record", "id", "parent", "root_id", "store", "task", "workflow")

    def __init__(
        self,
        task_id: str,
        store: ResultStore,
        *,
        task: str | None = None,
        convert: Callable[[Any], Any] | None = None,
        ignored: bool = False,
        parent: Result[Any] | GroupResult[Any] | None = None,
    ) -> None:
        self.id = task_id
        self.parent = parent
        self.workflow: Node[Any] | None = None
        """The workflow that this is the result of, as it was sent; ``None`` for a single call."""
        self.root_id: str | None = None
        """The root id of that workflow's tasks."""
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

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.wait().__await__()

    async def wait(self, timeout: float | None = None) -> R_co:
        """Return the task's value, or raise what the task raised.

        :param timeout: seconds to wait, for a store that is away too; ``None``: for ever, also for an id never sent.

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
        async with aclosing(self.store.follow([self.id]).records()) as records:
            async for record in records:
                yield self.remember(record)

    async def delete(self) -> None:
        """Delete what is stored of the result. ``forget`` is the same for code without a loop."""
        self._record = None
        await self.store.backend.forget([self.id])

    async def cancel(self, *, terminate: bool = False) -> None:
        """Cancel the task, so that it does not run any more. ``revoke`` is the same for code without a loop.

        A task that waits in its queue, or for its ETA, ends as REVOKED at once. A running coroutine is cancelled by its
        worker; other functions run to their end.

        :param terminate: kill the process in which the task runs, where it has one (``-P processes``).

        Raises ``BrokerError`` when the broker did not store it.
        """
        await revoke(self.store.connections.current(), [self.id], terminate=terminate)

    # --- for code without an event loop

    def get(self, timeout: float | None = None) -> R_co:
        """Block until the task is done; otherwise as ``wait``."""
        if self._record is None:
            block(self.store.wait, "get()", "await result.wait()", self._ending, timeout)
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
        """The state now; ``PENDING`` also for an unknown id."""
        return self._now("state").status

    @property
    def children(self) -> list[Result[Any] | GroupResult[Any]]:
        """Results of the tasks and groups that the task sent."""
        found = (result_from_tuple(child, self.store) for child in self._now("children").children or ())
        return [child for child in found if child is not None]

    @property
    def traceback(self) -> str | None:
        """The traceback in the worker, of a task that failed."""
        return self._now("traceback").traceback

    def forget(self) -> None:
        """Delete what is stored of the result."""
        block(self.store.run, "forget()", "await result.delete()", self.delete)

    def revoke(self, *, terminate: bool = False) -> None:
        """Cancel the task, as ``cancel`` does."""
        block(self.store.run, "revoke()", "await result.cancel()", partial(self.cancel, terminate=terminate))

    # --- how

    async def _ending(self, timeout: float | None) -> ResultRecord:
        """Wait for the final record."""
        patience(timeout)
        self.require_kept()
        if timeout is not None and timeout <= 0:
            record = await self.info()
            if record.ready:
                return record
            raise self._timed_out(timeout, record.status)
        seen = PENDING
        deadline = asyncio.timeout(timeout)
        following = self.store.follow([self.id])
        try:
            async with deadline, aclosing(following.records()) as records:
                async for record in records:
                    seen = record.status
                    if record.ready:
                        return self.remember(record)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise self._timed_out(timeout, seen, following.outage) from error
        raise BackendError(f"the result store stopped telling of {self} while it was {seen}")

    def _timed_out(self, timeout: float | None, seen: str, outage: Exception | None = None) -> ResultTimeout:
        hint = "; no worker has reported on it: does one take its queue?" if seen == PENDING else ""
        hint = f"; the result store could not be asked: {outage}" if outage else hint
        return ResultTimeout(f"{self} was not ready within {timeout:g} s: last seen {seen}{hint}")

    def require_kept(self) -> None:
        """Raise ``ResultMissing`` when the result is not kept anywhere."""
        if self._ignored:
            raise ResultMissing(f"no result is kept of {self}: it was sent with ignore_result=True")

    @property
    def record(self) -> ResultRecord | None:
        """The final record, if this handle has read it already."""
        return self._record

    def remember(self, record: ResultRecord) -> ResultRecord:
        """Keep a final record, so that the store is not asked again; return it."""
        if record.ready:
            self._record = record
        return record

    def _value(self, record: ResultRecord) -> R_co:
        if record.status != SUCCESS:
            raise error_of(record)
        value: R_co = self._convert(record.result) if self._convert else record.result
        return value

    def _now(self, name: str) -> ResultRecord:
        return self._record or block(self.store.run, name, "(await result.info())", self.info)


class Progress(msgspec.Struct, frozen=True):
    """How many tasks of a workflow have ended, of those that were known when it was sent."""

    total: int
    succeeded: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """How many tasks have ended, with success or without."""
        return self.succeeded + self.failed


@explains("a group's result", RESULT)
class GroupResult(Generic[R]):
    """The results of a group, in the order of its members.

    It can be iterated over, and with ``async for`` in the order in which the members end.

    :param id: the group's id.
    :param parent: the result of what ran before the group.
    """

    __slots__ = ("id", "parent", "results", "root_id", "store", "workflow")

    def __init__(
        self,
        group_id: str,
        results: Sequence[Result[R] | GroupResult[Any]],
        store: ResultStore,
        *,
        parent: Result[Any] | GroupResult[Any] | None = None,
    ) -> None:
        self.id = group_id
        self.results = list(results)
        self.store = store
        self.parent = parent
        self.workflow: Node[Any] | None = None
        """The workflow that this is the result of, as it was sent."""
        self.root_id: str | None = None
        """The root id of that workflow's tasks."""

    def __repr__(self) -> str:
        return f"<GroupResult {self.id} of {len(self.results)}>"

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result[R] | GroupResult[Any]]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Result[R] | GroupResult[Any]:
        return self.results[index]

    # --- for asyncio code

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.wait().__await__()

    def __aiter__(self) -> AsyncIterator[Result[R]]:
        return as_completed(list(self.leaves()))

    async def wait(self, timeout: float | None = None) -> list[R]:
        """Return the members' values in their order, a list for a group among them.

        Raises what the first member to fail raised, without waiting for the others, and as ``Result.wait``.

        :param timeout: seconds for all of them; ``None`` waits for ever.
        """
        deadline = asyncio.timeout(patience(timeout))
        try:
            async with deadline:
                async for result in self:
                    await result.wait()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            known = _known(list(self.leaves()))
            raise ResultTimeout(
                f"group {self.id} was not ready within {timeout:g} s: "
                f"{known.done} of {counted(known.total, 'task')} ended"
            ) from error
        return await _values(self.results)

    async def progress(self) -> Progress:
        """Return how many of the members have ended; one round trip."""
        return await _progress(list(self.leaves()))

    async def delete(self) -> None:
        """Delete what is stored of the members' results. ``forget`` is the same for code without a loop."""
        if self.results:
            await self.store.backend.forget([result.id for result in self.leaves()])

    async def cancel(self, *, terminate: bool = False) -> None:
        """Cancel the members, each as ``Result.cancel`` does."""
        ids = [result.id for result in self.leaves()]
        await revoke(self.store.connections.current(), ids, terminate=terminate)

    def leaves(self) -> Iterator[Result[Any]]:
        """Yield the results of all tasks in the group."""
        for result in self.results:
            if isinstance(result, GroupResult):
                yield from result.leaves()
            else:
                yield result

    # --- for code without an event loop

    def get(self, timeout: float | None = None) -> list[R]:
        """Block until all members are done; otherwise as ``wait``. Celery's name for it is ``join``."""
        return block(self.store.wait, "get()", "await result.wait()", self.wait, timeout)

    join = get

    def ready(self) -> bool:
        """Whether all members are done."""
        counted = self._counted("ready()")
        return counted.done == counted.total

    def successful(self) -> bool:
        """Whether all members returned a value."""
        counted = self._counted("successful()")
        return counted.succeeded == counted.total

    def failed(self) -> bool:
        """Whether a member raised."""
        return self._counted("failed()").failed > 0

    def completed_count(self) -> int:
        """How many members returned a value."""
        return self._counted("completed_count()").succeeded

    @property
    def children(self) -> list[Result[R] | GroupResult[Any]]:
        """The members' results."""
        return self.results

    def forget(self) -> None:
        """Delete what is stored of the members' results."""
        block(self.store.run, "forget()", "await result.delete()", self.delete)

    def revoke(self, *, terminate: bool = False) -> None:
        """Cancel the members, as ``cancel`` does."""
        block(self.store.run, "revoke()", "await result.cancel()", partial(self.cancel, terminate=terminate))

    def _counted(self, name: str) -> Progress:
        return block(self.store.run, name, "await result.progress()", self.progress)


async def _values(results: Sequence[Result[Any] | GroupResult[Any]]) -> list[Any]:
    """Return the values of results that are known to be ready, in lists as the groups nest."""
    return [
        await _values(result.results) if isinstance(result, GroupResult) else await result.wait()
        for result in results
    ]


async def workflow_progress(result: Result[Any] | GroupResult[Any]) -> Progress:
    """Return how many tasks of a whole workflow have ended, in one round trip."""
    return await _progress(list(_all_before(result)))


def _all_before(result: Result[Any] | GroupResult[Any]) -> Iterator[Result[Any]]:
    """Yield every result of a workflow, from the one that gives its value back to the first."""
    pending: list[Result[Any] | GroupResult[Any]] = [result]
    while pending:
        found = pending.pop()
        if isinstance(found, GroupResult):
            pending.extend(found.results)
        else:
            yield found
        if found.parent is not None:
            pending.append(found.parent)


async def _progress(results: Sequence[Result[Any]]) -> Progress:
    unknown = [result for result in results if result.record is None]
    if unknown:
        records = await unknown[0].store.backend.load([result.id for result in unknown])
        for result, record in zip(unknown, records, strict=True):
            if record is not None:
                result.remember(record)
    return _known(results)


def _known(results: Sequence[Result[Any]]) -> Progress:
    ended = [result.record.status for result in results if result.record is not None]
    return Progress(len(results), ended.count(SUCCESS), len(ended) - ended.count(SUCCESS))


async def as_completed(results: Iterable[Result[R]]) -> AsyncIterator[Result[R]]:
    """Yield the results in the order in which their tasks end; awaiting a yielded result returns at once.

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
        async with aclosing(store.follow(list(waiting)).records()) as records:
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


def block(
    run: Callable[[Coroutine[Any, Any, T]], T],
    name: str,
    instead: str,
    work: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
) -> T:
    """Run ``work`` for code without a loop; refuse where a loop would be blocked.

    :param name: the call that would block.
    :param instead: the code to write in its place in asyncio code.
    """
    if _in_running_loop():
        raise CeleriacError(
            f"result.{name} would block the running event loop; use {instead} in asyncio code"
        )
    return run(work(*args))


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def result_from_tuple(child: Any, store: ResultStore) -> Result[Any] | GroupResult[Any] | None:
    """Read a Celery result tuple: ``[[id, parent], members]``, or ``[id, members]`` of old groups."""
    if not isinstance(child, list | tuple) or len(child) != 2:
        return None
    name, members = child
    task_id, above = name if isinstance(name, list | tuple) and len(name) == 2 else (name, None)
    if not isinstance(task_id, str):
        return None
    parent = result_from_tuple(above, store)
    if not isinstance(members, list | tuple):
        return Result(task_id, store, parent=parent)
    found = (result_from_tuple(member, store) for member in members)
    return GroupResult(task_id, [member for member in found if member is not None], store, parent=parent)
