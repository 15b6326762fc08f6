"""The attempt: one delivery on its way through the worker, as the struct that every step takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from celeriac.context import Context
from celeriac.contracts.backend import Backend, EncodedResult
from celeriac.contracts.broker import Delivery, Receipt
from celeriac.contracts.set_aside import Failed
from celeriac.errors import CeleriacError
from celeriac.wire.envelope import Unreadable
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Decision, Ending, Raised
from celeriac.worker.raised import forget_frames
from celeriac.worker.runnable import Runnable
from celeriac.worker.slots import Place

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

    async def fail(self, failed: Failed) -> None:
        """Too late; the failed list itself can be told."""


SPENT: Receipt = Spent()

UNREAD = TaskMessage(id="", task="")
"""Stands for the message of an attempt until that was read."""


class Reports:
    """Stores the progress reports of a running task, in order, without making the task wait.

    While one report is on its way to the store, only the latest of the following ones is kept: older ones are stale.

    :param tell: called on the loop with each report.
    """

    __slots__ = ("_backend", "_latest", "_loop", "_running", "_tell", "used")

    def __init__(
        self, backend: Backend, loop: asyncio.AbstractEventLoop, tell: Callable[[ResultRecord], None]
    ) -> None:
        self._backend = backend
        self._loop = loop
        self._tell = tell
        self._latest: EncodedResult | None = None
        self._running: asyncio.Task[None] | None = None
        self.used = False

    def __call__(self, record: ResultRecord) -> None:
        """Take a report; any thread may call this. Raises ``EncodeError`` where its meta cannot be written."""
        encoded = self._backend.encode(record)
        self.used = True
        # A call from another thread must wake the loop; a call from the loop's own thread goes the same way.
        self._loop.call_soon_threadsafe(self._submit, encoded)

    async def done(self) -> None:
        """Return when all reports so far are stored, so that none of them overwrites the final result."""
        # Reports handed over a moment ago are still in the loop's queue of calls.
        await asyncio.sleep(0)
        if self._running is not None:
            await asyncio.wait([self._running])

    def _submit(self, encoded: EncodedResult) -> None:
        self._tell(encoded.record)
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
    """One delivery on its way through the worker.

    The context refers to the reports and not to the attempt: such a cycle would leave every attempt to the garbage
    collector.

    :ivar message: what could be read of the message; complete where the attempt runs.
    :ivar receipt: settles the message; ``SPENT`` once the message was acknowledged before its run.
    :ivar task: the task that runs, ``None`` where none does.
    :ivar context: the context that the body gets.
    :ivar conclusion: what the body itself says of its ending; ``None`` where it only returns or raises.
    :ivar paused: the body, where it waits until its ending is on record; else ``None``.
    :ivar ending: how the body ended.
    :ivar decision: what follows from the ending, or from a verdict against running.
    :ivar revoked: whether the body was stopped because its task was revoked.
    :ivar left_out: whether events tell of it only if it fails, because there are too many tasks.
    :ivar started: when the attempt began, in seconds of ``time.perf_counter``.
    :ivar running: the asyncio task in which the attempt runs.
    """

    __slots__ = (
        "conclusion",
        "context",
        "decision",
        "delivery",
        "ending",
        "left_out",
        "message",
        "paused",
        "place",
        "receipt",
        "reports",
        "revoked",
        "running",
        "started",
        "task",
    )

    def __init__(self, delivery: Delivery, place: Place) -> None:
        self.delivery = delivery
        self.place = place
        self.receipt = delivery.receipt
        self.message = UNREAD
        self.task: Runnable | None = None
        self.context: Context | None = None
        self.reports: Reports | None = None
        self.conclusion: Conclusion | None = None
        self.paused: Paused | None = None
        self.ending: Ending | None = None
        self.decision: Decision | None = None
        self.revoked = False
        self.left_out = False
        self.started = perf_counter()
        self.running: asyncio.Task[None] | None = None

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self.delivery.queue

    @property
    def tag(self) -> str | None:
        """Names the message's publication; the same for every delivery of it."""
        envelope = self.delivery.envelope
        return None if isinstance(envelope, Unreadable) else envelope.delivery_tag

    @property
    def is_concluded(self) -> bool:
        """Whether the body itself decided its ending."""
        return self.conclusion is not None and self.decision is self.conclusion.decision

    def begin(self, task: Runnable, reports: Reports, node: str, state: Mapping[str, Any]) -> None:
        """Set the task, and the context that its body gets."""
        self.task = task
        self.reports = reports
        self.context = Context(
            self.message,
            queue=self.delivery.queue,
            report=reports,
            worker=node,
            redelivered=self.delivery.redelivered,
            state=state,
        )

    def forget_frames(self) -> None:
        """Let go of what the frames of a failed body hold: the attempt may outlive them for a while."""
        if type(self.ending) is Raised:
            forget_frames(self.ending.error)
        if self.decision is not None and self.decision.error is not None:
            forget_frames(self.decision.error)
