"""The thread that does the jobs of one SQLite file, in their order.

Rules: jobs that write and wait at the same time share a transaction; the event loop is woken once for all of their
answers; an error in a periodic job never ends the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.errors import CeleriacError
from celeriac.servers.sqlite.connection import Answer, FileConnection, Job

_logger = logging.getLogger(__name__)

_AT_ONCE = 16
"""Jobs that share one transaction at the most: other processes must get their turn."""

Act = Callable[[], Any]
_Item = tuple[Job | Act, "asyncio.Future[Any]"]


class JobThread:
    """Does jobs in a thread that the first of them starts."""

    def __init__(self, file: FileConnection, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._periodic: list[_Periodic] = []
        self._thread: threading.Thread | None = None
        self._leaving: Collection[str] = ()

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended since."""
        return self._thread is not None

    def do(self, job: Job | Act) -> asyncio.Future[Any]:
        """Queue the job; the future gets its answer."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name=f"sqlite {self._file.path.name}", daemon=True
            )
            self._thread.start()
        self._items.put((job, future))
        return future

    def repeat(self, period: float, act: Act) -> None:
        """Call ``act`` each ``period`` seconds until the end; its errors are dropped. To be called in the thread."""
        self._periodic.append(_Periodic(period, act, self._clock.monotonic() + period))

    async def end(self, listeners: Collection[str]) -> None:
        """Do what waits, forget these listeners, close the file and end the thread. The next job starts it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._leaving = listeners
            self._items.put(None)
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        goes_on = True
        while goes_on:
            self._do_periodic()
            items, goes_on = self._next_items()
            for writes, group in groupby(items, key=_writes):
                act = self._write if writes else _call_all
                _tell(act(list(group)))
        self._periodic.clear()
        self._file.forget(self._leaving)
        self._file.close()

    def _next_items(self) -> tuple[list[_Item], bool]:
        """Wait for items; return those that are there, and whether the thread goes on after them."""
        items: list[_Item] = []
        with contextlib.suppress(queue.Empty):
            item = self._items.get(timeout=self._pause())
            while item is not None:
                items.append(item)
                if len(items) == _AT_ONCE:
                    return items, True
                item = self._items.get_nowait()
            return items, False
        return items, True

    def _write(self, items: Sequence[Any]) -> list[_Told]:
        answers = self._file.write([job for job, _ in items])
        return [(future, answer) for (_, future), answer in zip(items, answers, strict=True)]

    def _pause(self) -> float | None:
        if not self._periodic:
            return None
        return max(0.0, min(entry.next for entry in self._periodic) - self._clock.monotonic())

    def _do_periodic(self) -> None:
        if not self._periodic:
            return
        now = self._clock.monotonic()
        for entry in self._periodic:
            if entry.next <= now:
                entry.next = now + entry.period
                try:
                    entry.act()
                except CeleriacError:
                    _logger.debug("a periodic job on %s failed", self._file.path, exc_info=True)
                except Exception:
                    _logger.exception("a periodic job on %s failed", self._file.path)


class _Periodic(msgspec.Struct, eq=False):
    """A job that the thread repeats periodically."""

    period: float
    act: Act
    next: float


_Told = tuple["asyncio.Future[Any]", Answer]


def _writes(item: _Item) -> bool:
    return isinstance(item[0], Job)


def _call_all(items: Sequence[Any]) -> list[_Told]:
    return [_called(act, future) for act, future in items]


def _called(act: Act, future: asyncio.Future[Any]) -> _Told:
    try:
        return future, (act(), None)
    except BaseException as error:  # noqa: BLE001 - it goes to the caller
        return future, (None, error)


def _tell(answers: Sequence[_Told]) -> None:
    """Hand out the answers in the event loop that waits for them."""
    loop = answers[0][0].get_loop()
    if any(future.get_loop() is not loop for future, _ in answers):
        for answer in answers:
            _tell([answer])
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed, so that no caller waits any more
        loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Sequence[_Told]) -> None:
    for future, (value, error) in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
