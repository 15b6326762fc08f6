"""Runs the coroutines of a Celery app's tasks, while the thread of the tracer waits for their end.

Rules: with threads, a coroutine runs on the worker's event loop, as celeriac's own coroutine tasks do; in a child
process, and in the pool ``solo``, on a loop in a thread of its own. Both outlive the task, so that clients and pools of
connections can be kept. Hooks and receivers of signals may block, so they stay in the tracer's thread. The coroutine
sees the context variables of that thread, and through them ``self.request``.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from celeriac.context import CURRENT

LOOK = 0.1
"""Seconds between looks for a soft time limit, which Python raises in a thread only between two bytecodes."""

Outcome = tuple[Any, BaseException | None]


class RequestStack:
    """The requests of a task's current run (Celery: ``Task.request_stack``), kept in a context variable.

    Celery keeps them by thread, where a coroutine on the loop's thread would find those of another run.
    """

    def __init__(self) -> None:
        self._requests = contextvars.ContextVar[tuple[Any, ...]]("celeriac_requests", default=())

    def push(self, request: Any) -> None:
        """Put a request on top."""
        self._requests.set((*self._requests.get(), request))

    def pop(self) -> Any:
        """Take the topmost request off; return it, or ``None``."""
        requests = self._requests.get()
        self._requests.set(requests[:-1])
        return requests[-1] if requests else None

    @property
    def top(self) -> Any:
        """The topmost request, or ``None``."""
        requests = self._requests.get()
        return requests[-1] if requests else None

    @property
    def stack(self) -> list[Any]:
        """All requests, the topmost last."""
        return list(self._requests.get())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._requests.get())

    def __len__(self) -> int:
        return len(self._requests.get())


class Coroutines:
    """Runs the coroutines of one app's tasks in this process."""

    def __init__(self) -> None:
        self._home: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._begun: set[asyncio.AbstractEventLoop] = set()
        self._running: set[asyncio.Task[Outcome]] = set()

    def live_on(self, home: asyncio.AbstractEventLoop | None) -> None:
        """Run coroutines on this loop from now on; ``None`` for a loop of their own."""
        self._home = home

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end; return what it returns, or raise what it raises."""
        with self._free_loop() as loop:
            value, error = self._wait(loop, coroutine)
        if error is not None:
            raise error
        return value

    @contextmanager
    def _free_loop(self) -> Iterator[asyncio.AbstractEventLoop]:
        """Yield a loop that does not wait for what is run on it."""
        here = _loop_here()
        if here is not None and here in self._begun:
            # A coroutine applies another one: its own loop stands still meanwhile, and so may the worker's.
            extra = self._begin()
            try:
                yield extra
            finally:
                self._begun.discard(extra)
                extra.call_soon_threadsafe(extra.stop)
        elif self._home is not None and self._home is not here:
            yield self._home
        else:
            if self._own is None:
                self._own = self._begin()
            yield self._own

    def _begin(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        self._begun.add(loop)
        threading.Thread(target=_serve, args=(loop,), name="celeriac-coroutines", daemon=True).start()
        return loop

    def _wait(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Outcome:
        ended = Future[Outcome]()
        context, task = contextvars.copy_context(), None

        def start() -> None:
            nonlocal task
            task = loop.create_task(_outcome(coroutine), context=context)
            self._running.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(end)

        def end(done: asyncio.Task[Outcome]) -> None:
            self._running.discard(done)
            ended.set_result((None, asyncio.CancelledError()) if done.cancelled() else done.result())

        loop.call_soon_threadsafe(start)
        running = CURRENT.get()
        look = LOOK if running is not None and running.deadline is not None else None
        try:
            while True:
                with suppress(TimeoutError):
                    return ended.result(look)
        except BaseException:  # the soft time limit, raised in this thread
            loop.call_soon_threadsafe(lambda: task and task.cancel())
            raise


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> Outcome:
    """Await a coroutine; its error is returned, since ``SystemExit`` would end the loop that it runs on."""
    try:
        return await coroutine, None
    except BaseException as error:  # noqa: BLE001 - raised in the tracer's thread
        return None, error


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
