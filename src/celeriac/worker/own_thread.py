"""An event loop in a thread of its own, for a worker that is started by code without a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

LAST_JOIN = 1.0
"""Seconds that the thread has to end once its work is over; a coroutine that ignores cancellation would hold it up."""

Work = Callable[[Future[None], asyncio.Event], Coroutine[Any, Any, None]]
"""The work: it sets the future when it has begun, and ends when the event is set."""


class OwnThread:
    """Runs some work in an event loop until it is asked to stop."""

    def __init__(self, name: str, work: Work) -> None:
        self._name = name
        self._work = work
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self, patience: float) -> None:
        """Return when the work has begun, or after ``patience`` seconds; raise the error that ended it before that."""
        began: Future[None] = Future()
        thread = threading.Thread(target=self._run, args=(began,), name=self._name, daemon=True)
        thread.start()
        done, _ = wait([began], timeout=patience)
        if done:
            began.result()
        self._thread = thread

    def stop(self) -> None:
        """Ask the work to stop, and return when it has stopped."""
        if self._loop is not None and self._stop_asked is not None:
            with suppress(RuntimeError):  # it has ended by itself, and its loop with it
                self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._over.wait()
        if self._thread is not None:
            self._thread.join(LAST_JOIN)

    def _run(self, began: Future[None]) -> None:
        try:
            asyncio.run(self._run_in_loop(began))
        except BaseException as error:
            if began.done():
                raise
            began.set_exception(error)
        finally:
            self._over.set()

    async def _run_in_loop(self, began: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = asyncio.Event()
        await self._work(began, self._stop_asked)
        self._over.set()
