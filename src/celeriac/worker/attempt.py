"""The attempt: one delivery on its way through the worker, as the struct that every step takes."""

from __future__ import annotations

import asyncio
from signal import Signals
from time import perf_counter

import msgspec

from celeriac.context import Context
from celeriac.contracts.broker import Delivery, Receipt
from celeriac.contracts.set_aside import Failed
from celeriac.wire.task import TaskMessage
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Decision, Ending, Raised
from celeriac.worker.pool import Call
from celeriac.worker.raised import forget_frames
from celeriac.worker.runnable import Runnable
from celeriac.worker.soft_limit import SoftLimit


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


class Attempt(msgspec.Struct, eq=False):
    """One delivery on its way through the worker.

    The context does not refer to the attempt: such a cycle would leave every attempt to the garbage collector.

    :ivar has_slot: whether it counts among the running bodies.
    :ivar message: what could be read of the message; complete where the attempt runs.
    :ivar receipt: settles the message; ``SPENT`` once the message was acknowledged before its run.
    :ivar task: the task that runs, ``None`` where none does.
    :ivar context: the context that the body gets.
    :ivar call: the call of its body, where the pool got it before there was a slot for it.
    :ivar conclusion: what the body itself says of its ending; ``None`` where it only returns or raises.
    :ivar paused: the body, where it waits until its ending is on record; else ``None``.
    :ivar ending: how the body ended.
    :ivar decision: what follows from the ending, or from a verdict against running.
    :ivar revoked: whether the body was stopped because its task was revoked.
    :ivar signal: the signal that whoever revoked it while it ran wants it ended by; it is told, and not sent.
    :ivar left_out: whether events tell of it only if it fails, because there are too many tasks.
    :ivar is_early: whether the message is acknowledged before the body runs.
    :ivar is_tracked: whether the state STARTED is stored.
    :ivar is_last_chance: whether the message is on its last delivery.
    :ivar soft_limit: tells of the soft time limit of its body; ``None`` where that has none.
    :ivar is_light: whether what its message is to send on is read so quickly that no thread is needed for it.
    :ivar started: when the attempt began, in seconds of ``time.perf_counter``.
    :ivar running: the asyncio task in which the attempt runs.
    """

    delivery: Delivery
    receipt: Receipt
    has_slot: bool = False
    message: TaskMessage = UNREAD
    task: Runnable | None = None
    context: Context | None = None
    call: Call | None = None
    conclusion: Conclusion | None = None
    paused: Paused | None = None
    ending: Ending | None = None
    decision: Decision | None = None
    revoked: bool = False
    signal: Signals = Signals.SIGTERM
    left_out: bool = False
    is_early: bool = False
    is_tracked: bool = False
    is_last_chance: bool = False
    soft_limit: SoftLimit | None = None
    is_light: bool = True
    started: float = msgspec.field(default_factory=perf_counter)
    running: asyncio.Task[None] | None = None

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self.delivery.queue

    @property
    def is_concluded(self) -> bool:
        """Whether the body itself decided its ending."""
        return self.conclusion is not None and self.decision is self.conclusion.decision

    @property
    def has_reached_soft_limit(self) -> bool:
        """Whether the body ended by the exception of its soft time limit."""
        ending, task = self.ending, self.task
        return (
            isinstance(ending, Raised)
            and task is not None
            and isinstance(ending.error, task.conduct.soft_error)
        )

    def forget_frames(self) -> None:
        """Let go of what the frames of a failed body hold: the attempt may outlive them for a while."""
        if type(self.ending) is Raised:
            forget_frames(self.ending.error)
        if self.decision is not None and self.decision.error is not None:
            forget_frames(self.decision.error)
