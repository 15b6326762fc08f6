"""Runs plain functions in child processes.

Rules: a task travels by reference (module and name), never by value; giving up a call kills its process, and a process
that dies takes only its own call with it. Children ignore SIGINT: the worker says when they end.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from pebble import ProcessExpired, ProcessPool

from celeriac.context import CURRENT, Context
from celeriac.errors import ConfigError, RemoteError, RetryRequested, SoftTimeLimitExceeded, WorkerLost
from celeriac.task import Task
from celeriac.wire.failure import describe
from celeriac.wire.task import TaskMessage
from celeriac.worker.pool import Call
from celeriac.worker.raised import as_exception, note_place


class Processes:
    """A pool of up to ``limit`` processes, started by ``spawn`` when they are first needed.

    :param tasks: the app's tasks; every plain function among them must be reachable as ``module.name``.
    :param max_tasks: calls after which a child is replaced, ``None`` for never (Celery: ``max_tasks_per_child``).
    :param max_memory: peak resident KiB after which a child is replaced (Celery: ``max_memory_per_child``).
    :param places: URLs of broker and backend, for what the functions send and report.
    :param log: sets up a child's logging; pickled.

    Raises ``ConfigError`` naming a task that a child process could not find.
    """

    can_stop = True

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        *,
        max_tasks: int | None = None,
        max_memory: int | None = None,
        places: tuple[str, str] = ("", ""),
        log: Callable[[], None] | None = None,
    ) -> None:
        for task in tasks.values():
            if not task.is_coroutine:
                _check_reachable(task)
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._places = places
        self._log = log
        self._idle: list[ProcessPool] = []
        self._busy: set[ProcessPool] = set()

    async def call(self, call: Call) -> Any:
        """Run the function in a child; on cancellation the child is killed."""
        child = self._take_child()
        try:
            ended = await asyncio.wrap_future(
                child.schedule(_run_in_child, args=(*_parts(call), self._places))
            )
        except ProcessExpired as error:
            raise WorkerLost(
                f"the process that ran {call.task.name} ended with exit code {error.exitcode}"
            ) from error
        else:
            call.context.children.extend(ended.children)
            call.context.joiners.extend(ended.joiners)
            if self._max_memory is not None and ended.peak > self._max_memory:
                self._busy.discard(child)
                await _end(child)
            if ended.error is not None:
                raise ended.error
            return ended.value
        finally:
            if child in self._busy:
                self._busy.discard(child)
                self._idle.append(child)

    async def close(self) -> None:
        """Kill what still runs and end the children."""
        children = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        await asyncio.gather(*(_end(child) for child in children))

    def _take_child(self) -> ProcessPool:
        # A pool of one for each slot: a child can then be replaced between two calls, and dies alone.
        child = self._idle.pop() if self._idle else self._new_child()
        self._busy.add(child)
        return child

    def _new_child(self) -> ProcessPool:
        return ProcessPool(
            max_workers=1,
            max_tasks=self._max_tasks or 0,
            initializer=_prepare_child,
            initargs=(self._log,),
            context=multiprocessing.get_context("spawn"),
        )


class _Ended(msgspec.Struct):
    """How a call ended in a child: what it returned or raised, what it sent, and the child's peak memory in KiB."""

    value: Any
    error: Exception | None
    children: list[Any]
    joiners: list[dict[str, Any]]
    peak: int


class _ContextHere:
    """Stands for the context in the arguments on their way to the child."""


def _parts(call: Call) -> tuple[Any, ...]:
    context = call.context
    args = [_ContextHere() if value is context else value for value in call.args]
    kwargs = {name: _ContextHere() if value is context else value for name, value in call.kwargs.items()}
    told = (context.message, context.queue, context.worker, context.deadline, context.redelivered)
    return (call.task, args, kwargs, told, call.soft)


async def _end(child: ProcessPool) -> None:
    child.stop()  # type: ignore[no-untyped-call]
    await asyncio.to_thread(child.join)


def _run_in_child(
    task: Task[Any, Any],
    args: list[Any],
    kwargs: dict[str, Any],
    told: tuple[TaskMessage, str, str, float | None, bool],
    soft: float | None,
    places: tuple[str, str],
) -> _Ended:
    task.connect_to(*places)
    message, queue, worker, deadline, redelivered = told
    context = Context(
        message,
        queue=queue,
        report=task.report,
        worker=worker,
        deadline=deadline,
        redelivered=redelivered,
    )
    CURRENT.set(context)
    args = [context if isinstance(value, _ContextHere) else value for value in args]
    kwargs = {name: context if isinstance(value, _ContextHere) else value for name, value in kwargs.items()}
    value, failed = None, None
    try:
        with _soft_limit(soft):
            value = task.function(*args, **kwargs)
        pickle.dumps(value)
    except BaseException as error:  # noqa: BLE001 - it goes to the parent, which judges it
        value, failed = None, _portable(as_exception(error))
    return _Ended(value, failed, context.children, context.joiners, _peak_memory())


@contextmanager
def _soft_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``SoftTimeLimitExceeded`` in the block, also inside a blocking call, after so many seconds."""
    if seconds is None:
        yield
        return

    def passed(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded(seconds)

    signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _peak_memory() -> int:
    """Return the most KiB that this process ever had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: `getrusage` would tell the parent's peak, which a child inherits through fork and exec.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _portable(error: Exception) -> Exception:
    """Return the exception in a form that survives the way to the parent, with a note of where it was raised."""
    if isinstance(error, RetryRequested) and error.cause is None:
        # Neither cause nor context of an exception is pickled.
        error.cause = error.__cause__ or error.__context__
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        failure = describe(error)
        arguments = failure.exc_message if isinstance(failure.exc_message, list) else [failure.exc_message]
        return note_place(RemoteError(failure.exc_type, tuple(arguments), failure.exc_module), error)
    return note_place(error, error)


def _check_reachable(task: Task[Any, Any]) -> None:
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"task {task.name} cannot run in the process pool: a child process cannot import it ({error}); "
            "define it at the top level of a module, or use the pool 'threads'"
        ) from error


def _prepare_child(log: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if log is not None:
        log()
