"""Turns many concurrent calls into few round trips.

Rules: the items that queue up during one flush go into the next. A lone call is sent in the same turn of the loop,
without a timer, unless the callers are behind with their work. Each item has a future of its own, so that cancelling
one caller cancels no other. If a batch is refused, each item is tried alone, so that only the faulty one fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Generic, TypeVar

from celeriac.errors import BackendUnavailable, BrokerUnavailable

T = TypeVar("T")
R = TypeVar("R")

TRIP_BYTES = 8 * 1024 * 1024
"""Bytes that go in one round trip, if there is more than one item."""

CROWD = 32
"""So many items are worth a round trip of their own, where it costs little: then no flush waits for more."""

PATIENCE = 0.005
"""Seconds for which items wait for others while their callers have more to do than waiting."""

_UNAVAILABLE = (BackendUnavailable, BrokerUnavailable)


class Coalescer(Generic[T, R]):
    """Calls ``flush`` with the items of concurrent callers and hands each its own answer.

    :param flush: does the round trip; returns one answer an item, in order. An answer that is an exception instance
        is raised in the caller it belongs to. When ``flush`` itself raises, every caller of the batch gets that where
        the service is away; otherwise each item is flushed alone.
    :param limit: how many items go in one round trip at the most.
    :param linger: seconds that a flush waits for further items, if some queued up during the one before it. Items whose
        callers are in no hurry then take fewer round trips.
    :param weigh: returns an item's bytes, where items may be large; a batch has at most ``TRIP_BYTES``, or one item.
    :param is_behind: returns whether the callers have so much to do that each item is followed by others. Then also a
        lone item waits, no longer than this is true.
    :param patience: seconds for which an item waits so at the most.
    :param crowd: for how many items no flush waits for more.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        limit: int,
        weigh: Callable[[T], int] | None = None,
        linger: float = 0.0,
        is_behind: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE,
        crowd: int = CROWD,
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._weigh = weigh
        self._linger = linger
        self._is_behind = is_behind
        self._patience = patience
        self._crowd = crowd
        self._hurry = False
        self._while_behind = False
        self._pause: asyncio.Future[None] | None = None
        self._items: list[T] = []
        self._futures: list[asyncio.Future[R]] = []
        self._runner: asyncio.Future[None] | None = None
        self._was_alone = False
        self._loop: asyncio.AbstractEventLoop

    def __call__(self, item: T, *, hurry: bool = False) -> asyncio.Future[R]:
        """Queue the item; the future has its answer.

        :param hurry: let neither this item nor those before it wait for others.
        """
        if self._runner is None:
            # Asked for once a run: up to Python 3.11 each question is a system call.
            self._loop = asyncio.get_running_loop()
            self._runner = self._loop.create_task(self._run())
        future: asyncio.Future[R] = self._loop.create_future()
        self._items.append(item)
        self._futures.append(future)
        self._hurry |= hurry
        if self._pause is not None and self._has_waited_enough():
            _end(self._pause)
        return future

    async def lead(self, item: T) -> R:
        """Return the item's answer, flushed by the caller itself if it comes alone, as the one before it did.

        That spares turns of the loop, which one that sends or asks one after the other would wait for. To cancel the
        caller then cancels the flush.
        """
        if self._runner is not None or not self._was_alone:
            return await self(item)
        self._loop = asyncio.get_running_loop()
        self._runner = done = self._loop.create_future()
        try:
            (answer,) = await self._flush([item])
        finally:
            done.set_result(None)
            self._runner = self._loop.create_task(self._run()) if self._items else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        while (runner := self._runner) is not None:
            await asyncio.wait([runner])

    async def _run(self) -> None:
        try:
            linger = 0.0
            while self._items:
                await self._wait_for_others(linger)
                items, futures = self._next_batch()
                self._hurry = False
                self._was_alone = len(items) == 1
                await self._answer(items, futures)
                linger = self._linger
        finally:
            self._runner = None

    async def _wait_for_others(self, linger: float) -> None:
        """Wait until enough items queued up, if that is worth it; else for so many seconds."""
        self._while_behind = self._is_behind()
        seconds = self._patience if self._while_behind else linger
        if not seconds or self._has_waited_enough():
            return
        self._pause = pause = self._loop.create_future()
        timer = self._loop.call_later(seconds, _end, pause)
        try:
            await pause
        finally:
            self._pause = None
            timer.cancel()

    def _has_waited_enough(self) -> bool:
        crowded = self._hurry or len(self._items) >= self._crowd
        return crowded or (self._while_behind and not self._is_behind())

    def _next_batch(self) -> tuple[list[T], list[asyncio.Future[R]]]:
        """Take out of those that wait what goes into the next round trip."""
        count = min(len(self._items), self._limit)
        items = self._items[:count]
        if self._weigh is not None and sum(map(self._weigh, items)) > TRIP_BYTES:
            count = fitting(map(self._weigh, items))
            items = items[:count]
        futures = self._futures[:count]
        del self._items[:count], self._futures[:count]
        return items, futures

    async def _answer(self, items: Sequence[T], futures: Sequence[asyncio.Future[R]]) -> None:
        try:
            answers = await self._flush(items)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - the callers wait for an answer, whatever it is
            if len(items) > 1 and not isinstance(error, _UNAVAILABLE):
                for item, future in zip(items, futures, strict=True):
                    await self._answer([item], [future])
            else:
                _tell(futures, [error] * len(futures))
        else:
            _tell(futures, answers)


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


def fitting(sizes: Iterable[int], most: int = TRIP_BYTES) -> int:
    """Return how many items of these sizes fit into so many bytes, in their order; one always does."""
    number, left = 0, most
    for size in sizes:
        left -= size
        if left < 0:
            break
        number += 1
    return max(1, number)


def by_size(
    items: Sequence[T], weigh: Callable[[T], int], most: int = TRIP_BYTES, count: int = sys.maxsize
) -> Iterator[Sequence[T]]:
    """Yield the items in batches of at most ``most`` bytes and ``count`` items, or of one item."""
    start = 0
    while start < len(items):
        left = range(start, min(start + count, len(items)))
        end = start + fitting((weigh(items[place]) for place in left), most)
        yield items[start:end]
        start = end


def _copied(error: BaseException) -> BaseException:
    """Return an error for one more caller: frames of one would show up in the traceback of the other."""
    try:
        made = copy(error)
    except Exception:  # noqa: BLE001 - a class may refuse to be made so
        return error
    made.__cause__ = error.__cause__
    return made


def _tell(futures: Sequence[asyncio.Future[R]], answers: Sequence[R | BaseException]) -> None:
    told: set[int] = set()
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(_copied(answer) if id(answer) in told else answer)
            told.add(id(answer))
        else:
            future.set_result(answer)
