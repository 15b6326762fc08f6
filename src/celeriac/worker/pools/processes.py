"""Runs plain functions in child processes.

Rules: a task travels by reference (module and name), never by value; giving up a call kills its process, and a process
that dies takes only its own call with it, whatever its exit code, and none if it had none. What a call takes along and
brings back is pickled here, so that a value which does not come through is its task's failure, not the child's end.
Children ignore SIGINT and SIGTERM, which reach all of a group: the worker says when they end. They end with the worker,
however that ends: what they ran is run by another.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import multiprocessing
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from pebble import ProcessExpired, ProcessPool

from celeriac.client.task import Task
from celeriac.context import CURRENT, Context
from celeriac.errors import (
    ConfigError,
    EncodeError,
    ReplaceRequested,
    RetryRequested,
    SoftTimeLimitExceeded,
    WorkerLost,
)
from celeriac.wire.task import TaskMessage
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.pool import Call
from celeriac.worker.pools.portable import portable, restored
from celeriac.worker.raised import as_exception, forget_frames, place_of
from celeriac.worker.runnable import Runnable
from celeriac.worker.signals import SIGNALS, Inheritance

try:
    import fcntl
    import resource
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    fcntl = resource = None  # type: ignore[assignment]


logger = logging.getLogger("celeriac.worker")

TRY_AGAIN = 1.0
"""Seconds after which a process that could not be started is tried again."""


class Processes:
    """A pool of up to ``limit`` processes, started by ``spawn`` when they are first needed.

    :param tasks: the app's tasks; every plain function among them must be reachable as ``module.name``.
    :param max_tasks: calls after which a child is replaced, ``None`` for never (Celery: ``max_tasks_per_child``).
    :param max_memory: peak resident KiB after which a child is replaced (Celery: ``max_memory_per_child``).
    :param places: URLs of broker and backend, for what the functions send and report.
    :param begin: prepares a child before it looks for tasks: its logging, the modules that must come first; pickled.

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
        begin: Callable[[], None] | None = None,
    ) -> None:
        for task in tasks.values():
            if not task.is_coroutine:
                _check_reachable(task)
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._places = places
        self._begin = begin
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._limit: int | None = None
        self._told = False

    async def call(self, call: Call) -> Any:
        """Run the function in a child; on cancellation the child is killed."""
        child = await self._take_child()
        try:
            ended = await child.run(_run_in_child, _pickled(call), self._places)
        except (ProcessExpired, BrokenProcessPool) as error:
            raise WorkerLost(f"the process that ran {call.task.name} ended{_how(error)}") from error
        else:
            call.context.children.extend(ended.children)
            call.context.joiners.extend(ended.joiners)
            if not self._is_worn(child, ended.peak) and not self._is_crowded():
                self._busy.discard(child)
                self._idle.append(child)
                self._freed.set()
            if ended.error is not None:
                raise _raised_there(ended)
            return _unpickled(call.task, ended.value)
        finally:
            if child in self._busy:
                self._busy.discard(child)
                self._end(child)

    def resize(self, limit: int) -> None:
        """Have at most so many children; surplus ones end when they are free."""
        self._limit = limit
        while self._idle and self._is_crowded():
            self._end(self._idle.pop())

    async def close(self) -> None:
        """Kill what still runs and end the children."""
        for child in (*self._idle, *self._busy):
            self._end(child)
        self._idle.clear()
        self._busy.clear()
        await asyncio.gather(*self._ending)

    async def _take_child(self) -> _Child:
        # A pool of one for each slot: a child can then be replaced between two calls, and dies alone.
        while (child := self._idle_child() or self._new_child()) is None:
            self._freed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), TRY_AGAIN)
        self._busy.add(child)
        return child

    def _idle_child(self) -> _Child | None:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._end(child)  # killed while it had nothing to do
        return None

    def _new_child(self) -> _Child | None:
        """Start a child; return ``None`` where the system has no room for one more: calls wait for those there are."""
        child = _Child(self._begin)
        try:
            child.start()
        except (OSError, RuntimeError) as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "no child process could be started beside %d (%s): tasks wait for those; lower the concurrency, or "
                    "raise the system's limit",
                    len(self._busy),
                    error.__cause__ or error,
                )
            self._end(child)
            return None
        return child

    def _is_worn(self, child: _Child, peak: int) -> bool:
        return (self._max_tasks is not None and child.calls >= self._max_tasks) or (
            self._max_memory is not None and peak > self._max_memory
        )

    def _is_crowded(self) -> bool:
        return self._limit is not None and len(self._idle) + len(self._busy) > self._limit

    def _end(self, child: _Child) -> None:
        ending = asyncio.create_task(child.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class _Child:
    """A process that runs one call at a time, until one of them ends it.

    :param begin: prepares it.
    """

    def __init__(self, begin: Callable[[], None] | None) -> None:
        self._pool = ProcessPool(
            max_workers=1, initializer=_prepare_child, initargs=(begin,), context=_SpawnContext()
        )
        self.calls = 0

    def start(self) -> None:
        """Start the process. Raises ``OSError`` or ``RuntimeError`` where the system has no room for it."""
        if not self._pool.active:
            raise RuntimeError("it ended at once")

    @property
    def is_alive(self) -> bool:
        """Whether it can run calls."""
        return self._pool.active

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what the function returns there. Raises ``ProcessExpired`` or ``BrokenProcessPool`` when it dies."""
        self.calls += 1
        return await asyncio.wrap_future(self._pool.schedule(function, args=args))

    async def end(self) -> None:
        """Kill the process."""
        with suppress(OSError, RuntimeError):  # it had begun to start and could not
            self._pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(self._pool.join)


_LEFT_AT_ZERO = 256
"""What is told of a child that left with exit code 0, in the middle of a call: pebble would take it for a good end."""


class _SpawnProcess(SpawnProcess):
    def start(self) -> None:
        """Start it deaf to the signals that reach a whole group, until it can say itself that it ignores them."""
        resource_tracker.ensure_running()  # otherwise it is started along, and unblocks them
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def terminate(self) -> None:
        """End it at once: SIGTERM it ignores."""
        self.kill()

    @property
    def exitcode(self) -> int | None:
        code = super().exitcode
        return _LEFT_AT_ZERO if code == 0 else code


class _SpawnContext(SpawnContext):
    Process = _SpawnProcess


def _how(error: ProcessExpired | BrokenProcessPool) -> str:
    if not isinstance(error, ProcessExpired):
        return ""
    return f" with exit code {0 if error.exitcode == _LEFT_AT_ZERO else error.exitcode}"


class _Ended(msgspec.Struct):
    """How a call ended in a child.

    :param value: what it returned, pickled.
    :param error: what it raised, as ``portable`` has it.
    :param cause: the same of what a request for a retry is about.
    :param place: where it was raised.
    :param children: what it sent.
    :param peak: the child's peak memory in KiB.
    """

    value: bytes
    error: Any
    cause: Any
    place: str
    children: list[Any]
    joiners: list[dict[str, Any]]
    peak: int


class _ContextHere:
    """Stands for the context in the arguments on their way to the child."""


def _pickled(call: Call) -> bytes:
    context = call.context
    args = [_ContextHere() if value is context else value for value in call.args]
    kwargs = {name: _ContextHere() if value is context else value for name, value in call.kwargs.items()}
    told = (context.message, context.queue, context.worker, context.deadline, context.redelivered)
    try:
        return pickle.dumps((call.task, args, kwargs, told, call.soft))
    except Exception as error:
        raise EncodeError(
            f"task {call.task.name}: its arguments cannot go to a child process: {error}"
        ) from error


def _pickled_value(task: Task[Any, Any], value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - the value may refuse in any way
        raise EncodeError(f"task {task.name}: its value cannot leave the child process: {error}") from None


def _unpickled(task: Runnable, value: bytes) -> Any:
    try:
        return pickle.loads(value)  # noqa: S301 - our own bytes
    except Exception as error:
        raise EncodeError(
            f"task {task.name}: its value cannot come back from the child process: {error}"
        ) from error


def _raised_there(ended: _Ended) -> Exception:
    error: Exception = restored(ended.error)
    noted = error
    if isinstance(error, RetryRequested) and ended.cause is not None:
        noted = error.cause = restored(ended.cause)
    with suppress(Exception):  # a class of the user's may refuse to be set attributes
        noted.add_note(ended.place)
    return error


def _run_in_child(call: bytes, places: tuple[str, str]) -> _Ended:
    """Run a call that was pickled, with context variables of its own."""
    try:
        parts = pickle.loads(call)  # noqa: S301 - our own bytes
    except Exception as error:  # noqa: BLE001 - what the arguments' classes do is their task's failure
        ended = _Ended(b"", None, None, "", [], [], 0)
        _note(ended, error)
        return ended
    return contextvars.copy_context().run(_run, parts, places)


def _run(parts: tuple[Any, ...], places: tuple[str, str]) -> _Ended:
    task, args, kwargs, told, soft = parts
    task.connect_to(*places)
    context = _context_of(task, *told)
    CURRENT.set(context)
    args = [context if isinstance(value, _ContextHere) else value for value in args]
    kwargs = {name: context if isinstance(value, _ContextHere) else value for name, value in kwargs.items()}
    ended = _Ended(b"", None, None, "", context.children, context.joiners, 0)
    forks = FORKS.count
    try:
        with _soft_limit(soft):
            value = task.function(*args, **kwargs)
            if inspect.iscoroutine(value):  # a plain function around a coroutine function
                value = asyncio.run(value)
        if forks != FORKS.count:
            end_copy(None)
        ended.value = _pickled_value(task, value)
    except BaseException as error:  # noqa: BLE001 - it goes to the parent, which judges it
        if forks != FORKS.count:
            end_copy(error)
        _note(ended, as_exception(error))
        forget_frames(error)
    ended.peak = _peak_memory()
    return ended


def _context_of(
    task: Task[Any, Any],
    message: TaskMessage,
    queue: str,
    worker: str,
    deadline: float | None,
    redelivered: bool,
) -> Context:
    return Context(
        message, queue=queue, report=task.report, worker=worker, deadline=deadline, redelivered=redelivered
    )


def _note(ended: _Ended, error: Exception) -> None:
    """Note what a call raised in a form that survives the way to the parent."""
    raised: BaseException = error
    if isinstance(error, RetryRequested):
        # Neither cause nor context of an exception is pickled.
        cause = error.cause or error.__cause__ or error.__context__
        if cause is not None:
            ended.cause, raised = portable(as_exception(cause)), cause
        error = RetryRequested(error.countdown, None, error.max_attempts, error.arguments)
    ended.error, ended.place = portable(error), place_of(raised)
    if isinstance(error, RetryRequested | ReplaceRequested) and ended.error is not error:
        what = "the arguments of the next run" if isinstance(error, RetryRequested) else "a workflow"
        ended.error = EncodeError(f"{what} cannot come back from the child process: it cannot be pickled")


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


def _check_reachable(task: Task[Any, Any]) -> None:
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"task {task.name} cannot run in the process pool: a child process cannot import it ({error}); "
            "define it at the top level of a module, or use the pool 'threads'"
        ) from error


def _prepare_child(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A function and not SIG_IGN, which the programs that a task starts would inherit.
    signal.signal(signal.SIGTERM, _ignore)
    Inheritance({signal.SIGTERM: signal.SIG_DFL})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _die_with_parent()
    if begin is not None:
        begin()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Go on."""


def _die_with_parent() -> None:
    """Let the end of the parent kill this process; on Linux also while code keeps the interpreter lock.

    The standard library's sentinel is a pipe that the parent holds the other end of: the system signals its end.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Where the default is to ignore the signal, Python's own handler has to do.
    signal.signal(signal.SIGIO, signal.SIG_DFL if sys.platform == "linux" else lambda *_: os._exit(1))
    with suppress(OSError):  # a system that cannot do so for pipes
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([parent.sentinel], [], [], 0)[0]:
        os._exit(1)
