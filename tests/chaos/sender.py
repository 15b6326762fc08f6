"""Sends the planned calls, most by celeriac and some by Celery, and sends again what it cannot be sure of."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import kombu.exceptions
from amqp.exceptions import AMQPError
from celery import Celery

from celeriac import BrokerError
from tests.celery_connections import disconnect
from tests.chaos import celery_tasks, tasks
from tests.chaos.plan import BATCH, Plan, PlannedCall

R = TypeVar("R")

CELERYS_SHARE = 5
"""Every so manieth batch is sent by Celery."""

WAIT = 0.1


class Sender:
    """Sends at an even pace."""

    def __init__(self, url: str, results: str, plan: Plan, *, by_celery: bool) -> None:
        self._plan = plan
        self._celeriac = tasks.make_app(url, results)
        self._celery = celery_tasks.make_app(url, results) if by_celery else None
        self._thread = ThreadPoolExecutor(1)
        self.uncertain: Counter[str] = Counter()
        """How often a call was sent of which nobody knows whether it arrived, by id."""

    async def send(self, calls: Sequence[PlannedCall]) -> None:
        """Send all within the plan's seconds, or as soon after as it can be."""
        batches = [list(islice(calls, start, start + BATCH)) for start in range(0, len(calls), BATCH)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._celeriac:
            for number, batch in enumerate(batches):
                if self._celery is not None and number % CELERYS_SHARE == 0:
                    await self._by_celery(self._celery, batch)
                else:
                    await self._by_celeriac(batch)
                await asyncio.sleep(
                    max(0.0, began + self._plan.seconds * (number + 1) / len(batches) - loop.time())
                )
        if self._celery is not None:
            await self._in_celerys_thread(disconnect, self._celery)
        self._thread.shutdown()

    async def _by_celeriac(self, batch: Sequence[PlannedCall]) -> None:
        calls = [self._celeriac.call(call.task, task_id=call.id, countdown=call.countdown) for call in batch]
        while True:
            try:
                await self._celeriac.send_many(calls)
                return
            except BrokerError:
                self.uncertain.update(call.id for call in batch)
                await asyncio.sleep(WAIT)

    async def _by_celery(self, app: Celery, batch: Sequence[PlannedCall]) -> None:
        for call in batch:
            while not await self._in_celerys_thread(_celery_has, app, call):
                self.uncertain[call.id] += 1
                await asyncio.sleep(WAIT)

    async def _in_celerys_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _celery_has(app: Celery, call: PlannedCall) -> bool:
    try:
        app.send_task(call.task, task_id=call.id, countdown=call.countdown, retry=False)
    except (kombu.exceptions.OperationalError, ConnectionError, AMQPError):
        disconnect(app)  # the pool would give what is broken again
        return False
    return True
