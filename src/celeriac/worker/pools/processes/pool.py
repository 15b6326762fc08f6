"""The process pool: gives each call to a child."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from celeriac.client.task import Task
from celeriac.clock import set_within
from celeriac.context import Context
from celeriac.errors import ConfigError, EncodeError, WorkerLost
from celeriac.worker.concluding import Paused
from celeriac.worker.listeners import AroundBody
from celeriac.worker.pool import Call, NotBegun
from celeriac.worker.pools.processes.ahead import Ahead
from celeriac.worker.pools.processes.concluded import read as read_conclusion
from celeriac.worker.pools.processes.crossing import raised_there, unpickled_value, written
from celeriac.worker.pools.processes.frames import (
    CALL,
    CONCLUDED,
    DONE,
    ENDED,
    NOT_BEGUN,
    PAUSED,
    READY,
    RECORDED,
    RESUME,
    VALUE,
    WORN,
)
from celeriac.worker.pools.processes.handle import ChildEnded, Handle, NotStarted, OnAnswer
from celeriac.worker.pools.processes.launcher import END_WITHIN, Launcher
from celeriac.worker.pools.processes.piped import Placed
from celeriac.worker.pools.processes.portable import portable
from celeriac.worker.pools.processes.setup import Setup
from celeriac.worker.pools.processes.setup import written as written_setup

logger = logging.getLogger("celeriac.worker")

TRY_AGAIN = 1.0
"""Seconds after which a process that could not be started is tried again."""

_UNSURE = frozenset((ENDED, NOT_BEGUN))
"""Kinds of answers that do not tell that the message of a call with a delegate is acknowledged."""

READY_WITHIN = 30.0
"""Seconds that a worker waits for its children before it takes messages all the same."""


class Processes:
    """A pool of processes, each started when it is first needed, or by ``fill``; each runs one call at a time.

    :param tasks: the app's tasks; every plain function among them must be reachable as ``module.name``.
    :param limit: how many idle children are kept at the most.
    :param max_tasks: calls after which a child is replaced, ``None`` for never (Celery: ``max_tasks_per_child``).
    :param max_memory: peak resident KiB after which a child is replaced (Celery: ``max_memory_per_child``).
    :param places: URLs of broker and result store, for tasks that a function sends and progress that it reports.
    :param begin: prepares a process before it imports tasks (logging, modules that must come first); is pickled.
    :param lifespans: generator functions that run around the calls of each child.
    :param around: entered around each call, given what its context carries.
    :param start: ``forkserver`` imports the app once and forks the children from there; ``spawn`` starts each as a
        program of its own. ``None`` is ``spawn`` on macOS, whose libraries may not be used after a fork.
    :param collect: let each child collect cyclic garbage as its memory grows.
    :param fills: let ``fill`` start as many children as may run.
    :param on_started: called with the process id of a child that has started.
    :param on_stopped: called with the process id of a child that is gone.

    Raises ``ConfigError`` naming a task or a lifespan that a child process could not import.
    """

    can_stop = True

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        *,
        limit: int = 1,
        max_tasks: int | None = None,
        max_memory: int | None = None,
        places: tuple[str, str] = ("", ""),
        begin: Callable[[], None] | None = None,
        lifespans: Sequence[Callable[[], Any]] = (),
        around: Sequence[AroundBody] = (),
        start: str | None = None,
        collect: bool = True,
        fills: bool = False,
        on_started: Callable[[int], None] | None = None,
        on_stopped: Callable[[int], None] | None = None,
    ) -> None:
        self._references = {name: _reference(task) for name, task in tasks.items() if not task.is_coroutine}
        setup = Setup(
            begin,
            list(self._references.values()),
            places,
            _by_reference(lifespans, "lifespan"),
            _by_reference(around, "around_body"),
            max_memory,
            collect,
        )
        self._setup = written_setup(setup)
        self._tasks = tasks
        self._limit = limit
        self._max_tasks = max_tasks
        self._how = start or ("spawn" if sys.platform == "darwin" else "forkserver")
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._idle: list[Handle] = []
        self._count = 0
        self._freed = asyncio.Event()
        self._told = False
        self._launcher: Launcher | None = None
        self._fills = fills
        self._starting: set[asyncio.Task[None]] = set()
        self._old: dict[Launcher, asyncio.Task[None]] = {}
        self._at_work: dict[int, Handle] = {}
        self._ahead = Ahead(max_tasks)
        self._generation = 0
        with suppress(OSError):  # the first call tries again, and logs the error
            self._launch()

    @property
    def children(self) -> Processes:
        """Its child processes, which only the pool can count."""
        return self

    @property
    def processes(self) -> Sequence[int]:
        """The process ids of the children that have started."""
        return [child.pid for child in (*self._idle, *self._at_work.values()) if child.pid]

    def process_of(self, context: Context) -> int | None:
        """Return the id of the child that runs the call with this context."""
        child = self._at_work.get(id(context))
        return None if child is None else child.pid or None

    def restart(self) -> None:
        """Replace each child as soon as it is free; the new ones import the app anew."""
        self._generation += 1
        self._ahead.recall()
        while self._idle:
            self._retire(self._idle.pop())
        old, self._launcher = self._launcher, None
        if old is not None:
            self._old[old] = asyncio.create_task(self._end_when_free(old), name="celeriac-pool-restart")
        with suppress(OSError):  # the next call tries again, and logs the error
            self._launch()

    async def call(self, call: Call) -> Any:
        """Run the function in a child; on cancellation the child is killed."""
        placed, body = call.placed, b""
        if placed is None:
            body = written(call, self._reference_of(call))
        while True:
            if placed is None:
                child = self._idle_child() or await self._new_child()
                self._at_work[id(call.context)] = child
                asked = child.ask(CALL, body, partial(self._answered, child, call))
                child.stores = _is_stored_there(call)
            else:
                assert placed.child is not None
                assert placed.answer is not None
                child, asked = placed.child, placed.answer
            try:
                kind, answer = await asked
            except NotStarted as error:
                await self._wait_for_room(error)
            except ChildEnded as error:
                raise WorkerLost(f"the process that ran {call.task.name} {error}") from error
            except BaseException:
                if asked.cancelled():  # else it has answered, and may run another call by now
                    self._end_call(child)
                raise
            else:
                if kind == PAUSED and call.conclusion is not None:
                    read_conclusion(answer, call.conclusion)
                    return _Paused(child, partial(self._answered, child, call))
                return self._ended(call, kind, answer)
            finally:
                self._at_work.pop(id(call.context), None)

    def places(self, busy: int) -> int:
        """Return how many calls may be ahead while so many run."""
        return self._ahead.places(min(busy, self._count), self._limit)

    async def place(self, call: Call) -> bool:
        """Send a call ahead; return whether there was room for it, once the function has begun.

        Raises ``NotBegun`` where it was taken back.
        """
        if call.delegate is not None and not self._ahead.trusts_delegates:
            return False
        try:
            body = written(call, self._reference_of(call))
        except (EncodeError, ConfigError):  # raised again once it is called
            return False
        busy = [child for child in self._at_work.values() if child.generation == self._generation]
        call.placed = placed = self._ahead.place(call, body, busy)
        try:
            await placed.began
        except asyncio.CancelledError:
            self._give_up(placed)
            raise
        return True

    def recorded(self, call: Call) -> None:
        """Note that all is over with a call that was placed, its result included."""
        assert call.placed is not None
        child = self._ahead.note_recorded(call.placed)
        if child is not None and child.generation == self._generation:
            self._ahead.refill(child)

    def recall(self, call: Call | None = None) -> None:
        """Take back this call, or all that are ahead, as far as they have not begun."""
        self._ahead.recall(call)

    async def fill(self) -> None:
        """Start the children that are missing, if the pool is to be full; return when they are ready for calls.

        One that does not start is logged, and left to the calls. Those that take too long go on starting.
        """
        missing = range(self._limit - self._count if self._fills else 0)
        starting = [asyncio.create_task(self._start_ahead(), name="celeriac-child") for _ in missing]
        self._starting.update(starting)
        for task in starting:
            task.add_done_callback(self._starting.discard)
        if starting and (await asyncio.wait(starting, timeout=READY_WITHIN))[1]:
            logger.warning("child processes have been starting for %g s: tasks are taken now", READY_WITHIN)

    async def _start_ahead(self) -> None:
        try:
            child = self._launched().start()
            self._count += 1
            child.generation = self._generation
            await child.ask(READY, b"")
        except (OSError, NotStarted, ChildEnded) as error:
            logger.warning("a child process did not start: it %s", error)
        else:
            self._free(child, DONE)

    def resize(self, limit: int) -> None:
        """Keep at most ``limit`` idle children; a child that is busy ends its call first."""
        self._limit = limit
        self._ahead.recall()
        while self._idle and self._count > limit:
            self._retire(self._idle.pop(0))

    async def close(self) -> None:
        """Kill the children that still run a call, and end the others."""
        self._idle.clear()
        self._ahead.close()
        for ending in self._old.values():
            ending.cancel()
        current = () if self._launcher is None else (self._launcher,)
        await asyncio.gather(*(launcher.close() for launcher in (*current, *self._old)))

    async def _end_when_free(self, launcher: Launcher) -> None:
        await launcher.wait_for_children()
        del self._old[launcher]
        await launcher.close()

    def _free(self, child: Handle, kind: int) -> None:
        """Let a child that has answered run another call, unless it is worn or was replaced."""
        worn = kind >= WORN or child.calls == self._max_tasks or child.generation != self._generation
        if worn or self._count > self._limit:
            self._retire(child)
        elif not child.is_lost:
            if (placed := self._ahead.steal()) is not None:
                placed.child = child
                placed.answer = child.ask(CALL, placed.body, partial(self._answered, child, placed.call))
                self._begun(placed)
                self._ahead.refill(child)
                return
            self._idle.append(child)
            self._freed.set()

    def _answered(self, child: Handle, call: Call, kind: int, seconds: float) -> None:
        """Let a child go on as soon as its answer is read, and before that is dealt with."""
        if call.delegate is not None and kind & ~WORN not in _UNSURE:
            call.delegate = None
        if kind == PAUSED:
            self._ahead.end(child)
            return
        self._at_work.pop(id(call.context), None)
        self._ahead.note(child, call, seconds, recorded=kind == RECORDED)
        is_old = child.generation != self._generation
        if kind >= WORN or is_old:
            self._ahead.drop(child)
        if (placed := self._ahead.begin(child)) is not None:
            child.go_on(partial(self._answered, child, placed.call))
            self._begun(placed)
            if not is_old:
                self._ahead.refill(child)
        else:
            self._free(child, kind)
        call.ended(seconds)

    def _begun(self, placed: Placed) -> None:
        assert placed.child is not None
        placed.child.stores = _is_stored_there(placed.call)
        if not placed.began.done():
            self._at_work[id(placed.call.context)] = placed.child
            placed.call.begun()
            placed.began.set_result(None)

    def _give_up(self, placed: Placed) -> None:
        """End a call that was sent ahead, in whatever way."""
        child, answer = placed.child, placed.answer
        if child is not None:
            child.look()  # it may have answered, and run another call by now
        if placed.began.cancelled():
            self._ahead.recall(placed.call)
            if child is not None and self._ahead.holds(placed):
                self._count_out(child)
                self._kill(child)
        elif child is not None and answer is not None and not answer.done():
            self._end_call(child)

    def _end_call(self, child: Handle) -> None:
        """Kill a child for the sake of the call that it runs, unless it runs the next one already."""
        self._ahead.drop(child)
        if not child.runs_next():
            self._count_out(child)
            self._kill(child)

    def _ended(self, call: Call, kind: int, answer: Any) -> Any:
        kind &= ~WORN
        if kind == VALUE:
            return unpickled_value(call.task, answer)
        if kind in (CONCLUDED, RECORDED) and call.conclusion is not None:
            read_conclusion(answer, call.conclusion)
            return None
        if kind == NOT_BEGUN:
            self._ahead.distrust(call, bytes(answer).decode())
            raise NotBegun
        ended = pickle.loads(answer)  # noqa: S301 - our own bytes
        call.context.children.extend(ended.children)
        call.context.joiners.extend(ended.joiners)
        if ended.error is not None or ended.request:
            raise raised_there(ended)
        return unpickled_value(call.task, ended.value)

    def _idle_child(self) -> Handle | None:
        while self._idle:
            child = self._idle.pop()
            if not child.is_lost:
                return child
        return None

    async def _new_child(self) -> Handle:
        while True:
            try:
                child = self._launched().start()
            except OSError as error:
                await self._wait_for_room(error)
                if (free := self._idle_child()) is not None:
                    return free
            else:
                self._count += 1
                child.generation = self._generation
                return child

    def _launched(self) -> Launcher:
        if self._launcher is None or self._launcher.is_over:
            self._launch()
        assert self._launcher is not None
        return self._launcher

    def _launch(self) -> None:
        self._launcher = Launcher(self._setup, self._how, self._child_started, self._child_gone)

    async def _wait_for_room(self, error: Exception) -> None:
        """Wait until a child is free, or until it is time to try to start one again."""
        if not self._told:
            self._told = True
            logger.warning(
                "no child process could be started beside %d (%s): tasks wait for those; lower the concurrency, or "
                "raise the system's limit",
                self._count,
                error,
            )
        self._freed.clear()
        await set_within(self._freed, TRY_AGAIN)

    def _retire(self, child: Handle) -> None:
        """Let a child end by itself, and kill it if it does not."""
        self._count_out(child)
        child.say_goodbye()
        asyncio.get_running_loop().call_later(END_WITHIN, self._kill, child)

    def _count_out(self, child: Handle) -> None:
        """Stop counting a child, which may not have ended yet."""
        if not child.is_retired:
            child.is_retired = True
            self._count -= 1

    def _kill(self, child: Handle) -> None:
        if self._launcher is not None:
            self._launcher.kill(child)
        for launcher in self._old:
            launcher.kill(child)

    def _child_started(self, child: Handle) -> None:
        if self._on_started is not None:
            self._on_started(child.pid)

    def _child_gone(self, child: Handle, code: int | None) -> None:
        self._count_out(child)
        if (placed := self._ahead.lose(child)) is not None:
            self._begun(placed)
        if child in self._idle:
            self._idle.remove(child)
        if child.pid and self._on_stopped is not None:
            self._on_stopped(child.pid)

    def _reference_of(self, call: Call) -> bytes:
        task = call.task
        if self._tasks.get(task.name) is task and task.name in self._references:
            return self._references[task.name]
        return _reference(task)


class _Paused(Paused):
    """A call whose child waits until its ending is on record.

    :param done: called when the child is done.
    """

    def __init__(self, child: Handle, done: OnAnswer) -> None:
        self._child = child
        self._done = done

    async def resume(self, error: Exception | None) -> None:
        """Let the child go on; return when it is done, or has died."""
        told = b"" if error is None else pickle.dumps(portable(error))
        if self._child.is_lost:
            logger.warning("a process died after the ending of its task was recorded")
            return
        try:
            await self._child.ask(RESUME, told, self._done)
        except ChildEnded as ended:
            logger.warning("a process %s after the ending of its task was recorded", ended)


def _is_stored_there(call: Call) -> bool:
    """Whether the child that runs a call can store its result: it decides the ending, and owes its message nothing."""
    return call.conclusion is not None and call.conclusion.gone


def _reference(task: Any) -> bytes:
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"task {task.name} cannot run in the process pool: a child process cannot import it ({error}); "
            "define it at the top level of a module, or use the pool 'threads'"
        ) from error


def _by_reference(functions: Sequence[Callable[..., Any]], what: str) -> bytes:
    try:
        return pickle.dumps(list(functions))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"a {what} of child processes cannot be imported there ({error}); define it at the top level of a module"
        ) from error
