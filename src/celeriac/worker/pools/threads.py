"""Runs plain functions in threads.

Rules: one queue for all threads, so that a job never waits behind another while a thread is free; finished jobs come
back to the loop in batches, one wake-up for all that ended meanwhile; threads are started when a job finds none idle.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from celeriac.context import CURRENT, Context
from celeriac.task import Task
from celeriac.worker.raised import as_exception


class _Job:
    __slots__ = ("abandoned", "args", "context", "error", "function", "future", "kwargs", "started", "value")

    def __init__(
        self,
        function: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        context: Context,
        future: asyncio.Future[Any],
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None
        self.started = False
        self.abandoned = False

    def run(self) -> None:
        if self.abandoned:
            return
        self.started = True
        CURRENT.set(self.context)
        try:
            self.value = self.function(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - a task may not end the thread that runs the others
            self.error = as_exception(error)


class Threads:
    """A pool of at most ``limit`` daemon threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Job] = deque()
        self._wake_up_sent = False
        self._threads = 0
        self._unfinished = 0

    async def call(
        self, task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], context: Context
    ) -> Any:
        """Run the function in a thread; on cancellation the thread goes on and what it returns is dropped."""
        job = _Job(task.function, args, kwargs, context, self._loop.create_future())
        self._unfinished += 1
        if self._unfinished > self._threads and self._threads < self._limit:
            self._start_thread()
        self._jobs.put(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            job.abandoned = True
            if job.started:
                # A thread cannot be stopped; until it ends by itself another may take its place.
                self._limit += 1
            raise

    async def close(self) -> None:
        """Let idle threads end; those that are busy end with the process."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start_thread(self) -> None:
        self._threads += 1
        name = f"celeriac-task-{self._threads}"
        threading.Thread(target=contextvars.Context().run, args=(self._work,), name=name, daemon=True).start()

    def _work(self) -> None:
        take, finished = self._jobs.get, self._finished
        while (job := take()) is not None:
            job.run()
            finished(job)
            del job

    def _finished(self, job: _Job) -> None:
        self._done.append(job)
        if not self._wake_up_sent:
            # Set before the call: the loop clears it before it looks, so no job is left behind.
            self._wake_up_sent = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _collect(self) -> None:
        self._wake_up_sent = False
        done = self._done
        while done:
            job = done.popleft()
            self._unfinished -= 1
            future = job.future
            if job.abandoned:
                self._limit -= job.started
                continue
            if job.error is None:
                future.set_result(job.value)
            elif isinstance(job.error, StopIteration):
                # A future refuses StopIteration; the caller still gets to know its arguments.
                future.set_exception(RuntimeError(f"task raised StopIteration{job.error.args!r}"))
            else:
                future.set_exception(job.error)
