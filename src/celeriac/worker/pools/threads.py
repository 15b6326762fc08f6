"""Runs plain functions in threads.

Rules: all threads share one queue, so that a job never waits behind another while a thread is free. Finished jobs come
back to the loop in batches, with one wake-up for all that ended meanwhile. A job that finds no idle thread starts one;
if the system allows no more threads, it waits until one is free. Each job has context variables of its own, as a
coroutine has: it gets a copy of its attempt's, and the variables that it sets end with it.

A thread cannot be stopped. The soft limit is raised between two bytecodes of the function, so never inside a blocking
call. A call that is abandoned runs on, and another thread takes the place of its thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import logging
import threading
from collections import deque
from functools import partial
from queue import SimpleQueue
from typing import Any

from celeriac.context import CURRENT
from celeriac.wire.preview import counted
from celeriac.worker.concluding import CONCLUSION, Abandoned, Paused
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.pool import Call
from celeriac.worker.pools.database import usable_connections
from celeriac.worker.raised import as_exception, forget_frames

logger = logging.getLogger("celeriac.worker")

TRY_AGAIN = 1.0
"""Seconds after a thread could not be started, until the pool tries again."""


class _Job:
    __slots__ = (
        "_interruptible",
        "_lock",
        "abandoned",
        "answer",
        "call",
        "context",
        "error",
        "future",
        "gate",
        "rest",
        "started",
        "thread",
        "value",
        "waits",
    )

    def __init__(self, call: Call, future: asyncio.Future[Any]) -> None:
        self.call = call
        self.context = contextvars.copy_context()
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None
        self.started = False
        self.abandoned = False
        self.thread = 0
        self.waits = False
        self.gate: threading.Lock | None = None
        self.answer: Exception | None = None
        self.rest: asyncio.Future[None] | None = None
        self._lock = threading.Lock() if call.soft is not None else None
        self._interruptible = False

    def run(self) -> None:
        if self.abandoned:
            return
        self.started = True
        call = self.call
        try:
            if self._lock is None:
                self.value = self.context.run(_call, call)
            else:
                self._run_interruptibly(call)
        except BaseException as error:  # noqa: BLE001 - an exception must not end a thread that runs other jobs, too
            self.error = as_exception(error)

    def end_interrupts(self) -> None:
        """Let the soft limit not be raised any more."""
        if self._lock is not None:
            with self._lock:
                self._interruptible = False

    def interrupt(self) -> None:
        """Raise the soft limit in the function, if it is still running."""
        assert self._lock is not None
        with self._lock:
            if self._interruptible:
                self._interruptible = False
                _raise_in(self.thread, self.call.task.conduct.soft_error)

    def _run_interruptibly(self, call: Call) -> None:
        assert self._lock is not None
        self.thread = threading.get_ident()
        self._interruptible = True
        try:
            self.value = self.context.run(_call, call)
        finally:
            with self._lock:
                self._interruptible = False
                # A limit that was raised at the last moment must not hit the next job of this thread.
                _raise_in(self.thread, None)


class _Paused(Paused):
    """A call whose function waits, in its thread, until its ending is on record."""

    __slots__ = ("_job",)

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __del__(self) -> None:
        job = self._job
        if job.rest is None and job.gate is not None:  # nobody resumed it: a limit passed at that very moment
            job.abandoned, job.started = True, False
            job.gate.release()

    async def resume(self, error: Exception | None) -> None:
        """Let the function go on; return when it has returned, even if the attempt is cancelled meanwhile."""
        job = self._job
        assert job.gate is not None
        job.rest = asyncio.get_running_loop().create_future()
        job.answer = error
        job.gate.release()
        await job.rest


def _call(call: Call) -> Any:
    CURRENT.set(call.context)
    if call.conclusion is not None:  # a Celery app's own code sees to its database connections
        CONCLUSION.set(call.conclusion)
        return call.task.function(*call.args, **call.kwargs)
    with usable_connections():
        return call.task.function(*call.args, **call.kwargs)


class Threads:
    """A pool of at most ``limit`` daemon threads, besides those that run an abandoned call."""

    can_stop = False
    children = None

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lost = 0
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Job] = deque()
        self._wake_up_sent = False
        self._threads = 0
        self._unfinished = 0
        self._retry: asyncio.TimerHandle | None = None
        self._told = False

    async def call(self, call: Call) -> Any:
        """Run the function in a thread; after a cancellation the thread runs on, and its return value is dropped."""
        job = _Job(call, self._loop.create_future())
        if call.conclusion is not None:
            call.conclusion.wait = partial(self._pause, job)
        self._unfinished += 1
        self._jobs.put(job)
        self._start_threads()
        timer = self._loop.call_later(call.soft, job.interrupt) if call.soft is not None else None
        try:
            return await job.future
        except asyncio.CancelledError:
            job.abandoned = True
            if job.started:
                self._lost += 1
            if job.gate is not None and not job.waits:
                job.gate.release()  # what it handed over came too late
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def resize(self, limit: int) -> None:
        """Have at most ``limit`` threads; surplus ones end when they are free."""
        self._limit = limit
        surplus = self._threads - (limit + self._lost)
        for _ in range(surplus):
            self._threads -= 1
            self._jobs.put(None)
        self._start_threads()

    async def close(self) -> None:
        """End the idle threads; busy threads end with the process."""
        if self._retry is not None:
            self._retry.cancel()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start_threads(self) -> None:
        """Start threads while there are fewer than jobs; where the system allows no more, the jobs wait."""
        while self._threads < min(self._unfinished, self._limit + self._lost) and self._retry is None:
            name = f"celeriac-task-{self._threads + 1}"
            run = contextvars.Context().run
            try:
                threading.Thread(target=run, args=(self._work,), name=name, daemon=True).start()
            except RuntimeError as error:
                self._tell(error)
                self._retry = self._loop.call_later(TRY_AGAIN, self._try_again)
            else:
                self._threads += 1

    def _tell(self, error: RuntimeError) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "only %s could be started for plain functions (%s): the others wait for them; lower the concurrency, "
                "or raise the system's limit",
                counted(self._threads, "thread"),
                error,
            )

    def _try_again(self) -> None:
        self._retry = None
        self._start_threads()

    def _work(self) -> None:
        take, finished = self._jobs.get, self._finished
        forks = FORKS.count
        while (job := take()) is not None:
            job.run()
            if forks != FORKS.count:
                end_copy(job.error)
            finished(job)
            del job

    def _pause(self, job: _Job) -> Exception | None:
        """Wait in the job's thread until the ending of its body is on record; return what kept it from being so."""
        job.end_interrupts()
        if job.abandoned:
            raise Abandoned
        job.gate = threading.Lock()
        job.gate.acquire()
        job.waits = True
        self._finished(job)
        job.gate.acquire()
        if job.abandoned:
            raise Abandoned
        return job.answer

    def _hand_over(self, job: _Job) -> None:
        assert job.gate is not None
        job.waits = False
        if job.abandoned or job.future.done():
            job.gate.release()
        else:
            job.future.set_result(_Paused(job))

    def _finished(self, job: _Job) -> None:
        self._done.append(job)
        if not self._wake_up_sent:
            # The flag is set before the call and the loop clears it before it collects, so that no job is missed.
            self._wake_up_sent = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                return  # the loop is closed, so that no caller waits any more

    def _collect(self) -> None:
        self._wake_up_sent = False
        done = self._done
        while done:
            job = done.popleft()
            if job.waits:
                self._hand_over(job)
                continue
            self._unfinished -= 1
            if job.rest is not None:
                if not job.rest.done():
                    job.rest.set_result(None)
                continue
            future = job.future
            if job.abandoned:
                self._lost -= job.started
                if job.error is not None:
                    forget_frames(job.error)
                continue
            if job.error is None:
                future.set_result(job.value)
            elif isinstance(job.error, StopIteration):
                # A future refuses StopIteration; the caller still gets to know its arguments.
                future.set_exception(RuntimeError(f"task raised StopIteration{job.error.args!r}"))
            else:
                future.set_exception(job.error)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Make the thread raise before its next bytecode; ``None`` takes back an exception that it has not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error else None
    )
