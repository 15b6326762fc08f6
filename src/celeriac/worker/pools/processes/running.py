"""Runs one call in a child: the function, its soft limit, and its ending."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any

from celeriac.context import CURRENT, Context
from celeriac.errors import SoftTimeLimitExceeded
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import UNREAD
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.pools.processes.crossing import (
    ContextHere,
    Ended,
    Told,
    message_of,
    note,
    pickled_value,
    read,
)
from celeriac.worker.pools.processes.frames import ENDED, VALUE, WORN
from celeriac.worker.pools.processes.setup import Setup
from celeriac.worker.raised import as_exception, forget_frames

try:
    import resource
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    resource = None  # type: ignore[assignment]


class _ContextThere(Context):
    """A context in a child. Its message is made when the function asks for it, since most functions never do."""

    __slots__ = ("_made", "_told")

    def __init__(self, told: Told, report: Callable[[ResultRecord], None], state: Mapping[str, Any]) -> None:
        self._told = told
        self._made: TaskMessage | None = None
        super().__init__(
            UNREAD,
            queue=told.queue,
            report=report,
            worker=told.worker,
            deadline=told.deadline,
            redelivered=told.redelivered,
            state=state,
        )

    @property
    def message(self) -> TaskMessage:
        """The task message."""
        if self._made is None:
            self._made = message_of(self._told)
        return self._made

    @message.setter
    def message(self, message: TaskMessage) -> None:
        """Ignore the message: it can be made from the call at any time."""


class Running:
    """Runs the calls of one child.

    :param tasks: the tasks that were imported so far, by reference.
    :param state: the state that the child's lifespans yielded.
    """

    def __init__(self, setup: Setup, tasks: Mapping[bytes, Any], state: Mapping[str, Any]) -> None:
        self._places = setup.places
        self._max_memory = setup.max_memory
        self._tasks: dict[bytes, Any] = {}
        self._state = state
        for reference, task in tasks.items():
            self._know(reference, task)

    def answer(self, body: bytes | bytearray | memoryview) -> tuple[int, bytes]:
        """Run a call, with context variables of its own; return the kind and the body of the answer."""
        try:
            told = read(body)
            task = self._tasks.get(told.reference)
            if task is None:
                task = self._know(told.reference, pickle.loads(told.reference))  # noqa: S301 - our own bytes
        except Exception as error:  # noqa: BLE001 - what the arguments' classes do is their task's failure
            ended = Ended()
            note(ended, error)
            return ENDED, pickle.dumps(ended)
        kind, answer = contextvars.copy_context().run(self._run, task, told)
        return kind + WORN if self._is_worn() else kind, answer

    def _run(self, task: Any, told: Told) -> tuple[int, bytes]:
        context = _ContextThere(told, task.report, self._state)
        CURRENT.set(context)
        ended = Ended(children=context.children, joiners=context.joiners)
        forks = FORKS.count
        try:
            value = _called(task, told, context)
            if forks != FORKS.count:
                end_copy(None)
            ended.value = pickled_value(task.name, value)
        except BaseException as error:  # noqa: BLE001 - it goes to the worker, which judges it
            if forks != FORKS.count:
                end_copy(error)
            note(ended, as_exception(error))
            forget_frames(error)
        if not (ended.error or ended.request or ended.children or ended.joiners):
            return VALUE, ended.value
        return ENDED, pickle.dumps(ended)

    def _know(self, reference: bytes, task: Any) -> Any:
        task.connect_to(*self._places)
        self._tasks[reference] = task
        return task

    def _is_worn(self) -> bool:
        return self._max_memory is not None and _peak_memory() > self._max_memory


def _called(task: Any, told: Told, context: Context) -> Any:
    args, kwargs = told.args, told.kwargs
    for value in (*args, *kwargs.values()):
        if type(value) is ContextHere:
            args = [context if type(value) is ContextHere else value for value in args]
            kwargs = {
                name: context if type(value) is ContextHere else value for name, value in kwargs.items()
            }
            break
    if told.soft is None:
        value = task.function(*args, **kwargs)
        return asyncio.run(value) if type(value) is CoroutineType else value
    with _soft_limit(told.soft):
        value = task.function(*args, **kwargs)
        # A plain function around a coroutine function.
        return asyncio.run(value) if type(value) is CoroutineType else value


@contextmanager
def _soft_limit(seconds: float) -> Iterator[None]:
    """Raise ``SoftTimeLimitExceeded`` in the block, also inside a blocking call, after so many seconds."""

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
