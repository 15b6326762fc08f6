"""Runs one call in a child: the function, its soft limit, and its ending."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from types import CoroutineType, FrameType
from typing import Any, TypeAlias

from celeriac.context import CURRENT, Context
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import UNREAD
from celeriac.worker.concluding import CONCLUSION, Abandoned, Conclusion
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.pools.database import usable_connections
from celeriac.worker.pools.processes.acknowledging import Acknowledging
from celeriac.worker.pools.processes.around import Around
from celeriac.worker.pools.processes.concluded import can_be_stored, written
from celeriac.worker.pools.processes.crossing import (
    Body,
    ContextHere,
    Ended,
    Told,
    message_of,
    note,
    pickled_value,
    read,
    read_delegate,
)
from celeriac.worker.pools.processes.frames import (
    CALLS,
    CONCLUDED,
    DONE,
    ENDED,
    NOT_BEGUN,
    PAUSED,
    RECORDED,
    VALUE,
    WORN,
    Line,
)
from celeriac.worker.pools.processes.leaving import Leaving, Left
from celeriac.worker.pools.processes.portable import restored
from celeriac.worker.pools.processes.setup import Setup
from celeriac.worker.raised import as_exception, forget_frames

try:
    import resource
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    resource = None  # type: ignore[assignment]


logger = logging.getLogger("celeriac.worker")

Answer: TypeAlias = tuple[int, bytes] | Conclusion
"""The kind and the body of an answer, or what a call decided itself, of which the answer is yet to be made."""


class _ContextThere(Context, eq=False):
    """A context in a child. Its message is made when the function asks for it, since most functions never do."""

    _told: Told | None = None
    _made: TaskMessage | None = None

    @property  # type: ignore[misc]  # stands before the field of the same name, which stays unread
    def message(self) -> TaskMessage:
        """The task message."""
        if self._made is None and self._told is not None:
            self._made = message_of(self._told)
        return self._made or UNREAD

    @message.setter
    def message(self, message: TaskMessage) -> None:
        """Replace the message."""
        self._made = message


def _context_of(
    told: Told, report: Callable[[ResultRecord], None], state: Mapping[str, Any]
) -> _ContextThere:
    context = _ContextThere(
        UNREAD,
        queue=told.queue,
        report=report,
        worker=told.worker,
        deadline=None if told.left is None else monotonic() + told.left,
        redelivered=told.redelivered,
        state=state,
        _told=told,
    )
    if told.carried is not None:
        context.log_fields, context.carried = told.carried
    return context


class Running:
    """Runs the calls of one child.

    :param tasks: the tasks that were imported so far, by reference.
    :param state: the state that the child's lifespans yielded.
    :param line: by which a call hands over its ending before it is done.
    :param leaving: how a call ends that is not to end by itself.
    """

    def __init__(
        self, setup: Setup, tasks: Mapping[bytes, Any], state: Mapping[str, Any], line: Line, leaving: Leaving
    ) -> None:
        self._line = line
        self._leaving = leaving
        self._places = setup.places
        self._max_memory = setup.max_memory
        self._tasks: dict[bytes, Any] = {}
        self._state = state
        self._around = Around(setup.around)
        self._acknowledging = Acknowledging()
        for reference, task in tasks.items():
            self._know(reference, task)

    def answer(self, body: Body) -> None:
        """Run a call, with context variables of its own, and answer it.

        Raises ``Left`` where the process is to end instead.
        """
        answer = self._answer_to(body)
        if isinstance(answer, Conclusion):
            with self._leaving.put_off():  # a result that is stored must be told
                self._conclude(answer)
        else:
            self._line.answer(*answer)

    def _answer_to(self, body: Body) -> Answer:
        try:
            delegated, told = read(body)
            task = self._tasks.get(told.reference)
            if task is None:
                task = self._know(told.reference, pickle.loads(told.reference))  # noqa: S301 - our own bytes
        except BaseException as error:  # noqa: BLE001 - what the arguments' classes do is their task's failure
            ended = Ended()
            note(ended, as_exception(error))
            return ENDED, pickle.dumps(ended)
        with self._leaving.possible():
            if delegated is None:
                self._acknowledging.forget()
            else:
                refusal = self._acknowledging.refusal(delegated)
                if refusal is not None:
                    return NOT_BEGUN, refusal
            answer = contextvars.copy_context().run(self._run, task, told)
        if isinstance(answer, Conclusion):
            return answer
        kind, ending = answer
        return kind + WORN if self._is_worn() else kind, ending

    def _conclude(self, conclusion: Conclusion) -> None:
        """Tell how a call ended that decided its ending itself.

        Its result is stored here, if the worker lets children do so, together with the acknowledgement of the next.
        """
        if self._is_worn():  # what is ahead is for another child
            self._line.answer(CONCLUDED + WORN, written(conclusion))
        elif can_be_stored(conclusion) and self._store(conclusion):
            self._line.answer(RECORDED, written(conclusion, stored=True))
        else:
            self._line.answer(CONCLUDED, written(conclusion))

    def _store(self, conclusion: Conclusion) -> bool:
        decision = conclusion.decision
        if decision is None or not decision.results:
            return True
        frame = self._line.upcoming()
        upcoming = None if frame is None or frame[0] not in CALLS else read_delegate(frame[1])
        return self._acknowledging.store(decision.results, upcoming)

    def _run(self, task: Any, told: Told) -> Answer:
        context = _context_of(told, task.report, self._state)
        CURRENT.set(context)
        if not context.carried:
            return self._run_here(task, told, context)
        with self._around.entered(context.carried):
            return self._run_here(task, told, context)

    def _run_here(self, task: Any, told: Told, context: Context) -> Answer:
        if told.concludes is not None:
            return self._run_to_conclusion(task, told, context, *told.concludes)
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

    def _run_to_conclusion(
        self, task: Any, told: Told, context: Context, tag: str | None, gone: bool
    ) -> Answer:
        """Run a call that decides its ending itself."""
        conclusion: Conclusion = task.conclusion(context, tag, gone=gone)
        conclusion.wait = wait = _Wait(self._line, conclusion)
        CONCLUSION.set(conclusion)
        try:
            _called(task, told, context)
        except Left:
            raise
        except BaseException as error:
            if wait.over:
                logger.exception("task %s failed after its end", task.name)
            elif conclusion.decision is None:
                ended = Ended()
                note(ended, as_exception(error))
                forget_frames(error)
                return ENDED, pickle.dumps(ended)
        return (DONE, b"") if wait.over else conclusion

    def _know(self, reference: bytes, task: Any) -> Any:
        task.connect_to(*self._places)
        self._tasks[reference] = task
        return task

    def _is_worn(self) -> bool:
        return self._max_memory is not None and _peak_memory() > self._max_memory


class _Wait:
    """Hands the ending of a call over to the worker.

    :ivar over: whether the worker has it.
    """

    def __init__(self, line: Line, conclusion: Conclusion) -> None:
        self._line = line
        self._conclusion = conclusion
        self.over = False

    def __call__(self) -> Exception | None:
        """Return when it is on record; return what kept it from being so."""
        signal.setitimer(signal.ITIMER_REAL, 0)  # the soft limit is for the body
        self.over = True
        self._line.answer(PAUSED, written(self._conclusion))
        frame = self._line.receive_word()
        if frame is None:
            raise Abandoned
        return restored(pickle.loads(frame[1])) if frame[1] else None  # noqa: S301 - our own bytes


def _called(task: Any, told: Told, context: Context) -> Any:
    args, kwargs = told.args, told.kwargs
    for value in (*args, *kwargs.values()):
        if type(value) is ContextHere:
            args = [context if type(value) is ContextHere else value for value in args]
            kwargs = {
                name: context if type(value) is ContextHere else value for name, value in kwargs.items()
            }
            break
    # A Celery app's own code sees to its database connections.
    connections = nullcontext() if task.conduct.concludes else usable_connections()
    if told.soft is None:
        with connections:
            value = task.function(*args, **kwargs)
            return asyncio.run(value) if type(value) is CoroutineType else value
    error = task.conduct.soft_error
    with connections:
        with _soft_limit(told.soft, error):
            value = task.function(*args, **kwargs)
            if type(value) is not CoroutineType:
                return value
            # A plain function around a coroutine function: raised in its event loop, the error would cost its value.
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        return asyncio.run(_bounded(value, left, error(told.soft)))


async def _bounded(body: CoroutineType[Any, Any, Any], left: float, error: Exception) -> Any:
    """Return what a coroutine returns, also where it is cancelled because its time is over; else raise the error."""
    running = asyncio.ensure_future(body)
    if not (await asyncio.wait([running], timeout=left))[0]:
        running.cancel()
        await asyncio.wait([running])
        if running.cancelled():
            raise error
    return running.result()


@contextmanager
def _soft_limit(seconds: float, error: type[Exception]) -> Iterator[None]:
    """Raise the error in the block, also inside a blocking call, after so many seconds."""

    def passed(number: int, frame: FrameType | None) -> None:
        raise error(seconds)

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
