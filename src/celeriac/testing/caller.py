"""Runs tasks in the thread of a test that blocks: its worker is on the background loop, its functions run here.

Rules: whichever thread waits for the loop runs the functions that the worker hands over, so what a task does to a
database is inside the test's own transaction; a function may block and wait in turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from celeriac.client.blocking import BackgroundLoop
from celeriac.context import CURRENT
from celeriac.worker.pool import Call

T = TypeVar("T")


class Caller:
    """Blocks for coroutines of the background loop, and runs what the pool has for this thread meanwhile.

    :ivar depth: how many functions of tasks are under way.
    """

    def __init__(self, background: BackgroundLoop) -> None:
        self._background = background
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self.depth = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return or raise what the coroutine returns or raises."""
        future = self._background.submit(coroutine)
        future.add_done_callback(lambda _: self._wake())
        try:
            while not future.done():
                if (job := self._next_job(future.done)) is not None:
                    job()
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def hand_over(self, job: Callable[[], None]) -> None:
        """Let a thread that waits run this; called by the loop."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def _next_job(self, is_done: Callable[[], bool]) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or is_done())
            return self._jobs.popleft() if self._jobs else None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class InCaller:
    """A pool whose functions run in the thread that waits; soft time limits have no effect there."""

    can_stop = False
    children = None

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def call(self, call: Call) -> Any:
        """Run the function in the thread of the test, once that waits."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            self._caller.depth += 1
            try:
                context = copy_context()
                context.run(CURRENT.set, call.context)
                value = context.run(partial(call.task.function, *call.args, **call.kwargs))
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending
                loop.call_soon_threadsafe(_raise_in, ended, error)
            else:
                loop.call_soon_threadsafe(_return_in, ended, value)
            finally:
                self._caller.depth -= 1

        self._caller.hand_over(run)
        return await ended

    def resize(self, limit: int) -> None:
        """Do nothing: as many functions run as threads wait."""

    async def close(self) -> None:
        """Do nothing: this pool has nothing to stop."""


def _return_in(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _raise_in(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        # A future takes no StopIteration, since it would end the coroutine that awaits it.
        future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
