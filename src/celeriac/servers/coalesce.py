"""Turns many concurrent calls into few round trips.

Rules: whatever queued up while the last flush was under way goes in the next; nothing waits for a timer, so a lone
call is sent in the same turn of the loop. An item is answered by its own future, so cancelling one caller cancels
nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """Calls ``flush`` with the items of concurrent callers and hands each its own answer.

    :param flush: does the round trip; returns one answer an item, in order. An answer that is an exception instance
        is raised in the caller it belongs to; when ``flush`` itself raises, every caller of the batch gets that.
    :param limit: how many items go in one round trip at the most.
    """

    def __init__(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]], limit: int
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def __call__(self, item: T) -> asyncio.Future[R]:
        """Queue the item; the future has its answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = loop.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        runner = self._runner
        if runner is not None:
            await asyncio.wait([runner])

    async def _run(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                count = min(len(waiting), self._limit)
                batch = [waiting.popleft() for _ in range(count)]
                await self._answer(batch)
        finally:
            self._runner = None

    async def _answer(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - the callers wait for an answer, whatever it is
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
