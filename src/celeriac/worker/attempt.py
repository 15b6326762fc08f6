"""What one attempt at one task holds together."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Any

from celeriac.backend import Backend, EncodedResult
from celeriac.broker import Delivery, Receipt
from celeriac.client.task import Task
from celeriac.context import Context
from celeriac.errors import CeleriacError
from celeriac.settings import Settings
from celeriac.wire.envelope import Unreadable
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage

logger = logging.getLogger("celeriac.worker")


class Spent:
    """The receipt of a message that was acknowledged before it ran: there is nothing left to settle."""

    async def ack(self, *, surely: bool = False) -> None:
        """Done already."""

    async def requeue(self) -> None:
        """Too late: the message is gone from the broker."""

    async def park(self, due: float) -> None:
        """Too late."""

    async def bury(self, reason: str) -> None:
        """Too late."""


SPENT: Receipt = Spent()


class Reports:
    """Stores what a running task reports of itself, in order, without making it wait.

    While one report is on its way only the latest of those that follow is kept: progress is about now.
    """

    __slots__ = ("_backend", "_latest", "_loop", "_running", "used")

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._latest: EncodedResult | None = None
        self._running: asyncio.Task[None] | None = None
        self.used = False

    def __call__(self, record: ResultRecord) -> None:
        """Take a report, from whichever thread. Raises ``EncodeError`` where its meta cannot be written."""
        encoded = self._backend.encode(record)
        self.used = True
        # From another thread the loop must be woken; in its own thread this is as good and keeps one way.
        self._loop.call_soon_threadsafe(self._submit, encoded)

    async def done(self) -> None:
        """Return when what was reported so far is stored, so that it cannot overtake the final result."""
        # Reports handed over a moment ago are still in the loop's queue of calls.
        await asyncio.sleep(0)
        if self._running is not None:
            await asyncio.wait([self._running])

    def _submit(self, encoded: EncodedResult) -> None:
        self._latest = encoded
        if self._running is None:
            self._running = self._loop.create_task(self._store())

    async def _store(self) -> None:
        try:
            while (encoded := self._latest) is not None:
                self._latest = None
                await self._backend.store(encoded)
        except CeleriacError as error:
            logger.warning("a progress report could not be stored: %s", error)
        finally:
            self._running = None


class Attempt:
    """One message, its task, its receipt, and the context that its body sees.

    The context knows the reports, not the attempt: a cycle would leave every attempt to the garbage collector.
    """

    __slots__ = ("context", "message", "queue", "receipt", "reports", "revoked", "started", "tag", "task")

    def __init__(
        self, message: TaskMessage, task: Task[Any, Any], delivery: Delivery, reports: Reports, node: str
    ) -> None:
        self.message = message
        self.task = task
        self.queue = delivery.queue
        self.receipt = delivery.receipt
        self.tag = None if isinstance(delivery.envelope, Unreadable) else delivery.envelope.delivery_tag
        self.reports = reports
        self.started = perf_counter()
        self.revoked = False
        self.context = Context(
            message,
            queue=delivery.queue,
            report=reports,
            worker=node,
            redelivered=delivery.redelivered,
        )

    def limits(self, settings: Settings) -> tuple[float | None, float | None]:
        """Soft and hard time limit in seconds: the message's own, else the task's, else the app's."""
        message, options = self.message, self.task.options
        soft = message.soft_time_limit
        if soft is None:
            soft = options.soft_timeout if options.soft_timeout is not None else settings.soft_time_limit
        hard = message.time_limit
        if hard is None:
            hard = options.timeout if options.timeout is not None else settings.time_limit
        return soft, hard
