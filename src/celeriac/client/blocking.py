"""Runs coroutines for code that has no event loop, in one background loop for each process.

Rules: the loop's thread is a daemon. It is started on first use, and again after a fork. A blocking call blocks the
thread that makes it, even if an event loop runs in that thread, but never waits for that loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor as _  # noqa: F401 - has its end registered before ours
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_TIMEOUT = 5.0
"""Seconds that the end of the program waits for connections to be closed."""


class BackgroundLoop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        # Brokers and stores need their executors' threads to close, and Python ends those before it calls `atexit`.
        getattr(threading, "_register_atexit", atexit.register)(self.stop)

    def run(self, coroutine: Coroutine[Any, Any, T], *, for_a_result: bool = False) -> T:
        """Return or raise what the coroutine returns or raises. An interrupt of the wait cancels the coroutine.

        :param for_a_result: makes no difference here; see ``RunBlocking``.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start the coroutine, and return the future of what it returns or raises."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "a blocking call was made on celeriac's background loop; use its awaitable twin there"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())

    def stop(self) -> None:
        """Cancel what runs, close connections, end the thread. The next ``run`` starts another."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(EXIT_TIMEOUT)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="celeriac", daemon=True
                )
                self._thread.start()
            return self._loop

    def _forget(self) -> None:
        # The parent's thread is not in the child, and its lock may have been held at the fork.
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=EXIT_TIMEOUT))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


BACKGROUND = BackgroundLoop()
"""The process's one background loop."""
