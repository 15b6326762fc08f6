"""Runs one attempt from start to finish, as a straight line.

Rules: every effect that must land goes through ``effects``. A void receipt ends the attempt. No exception leaves
``run``, so that one attempt cannot end another, or the worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

from celeriac.context import Context
from celeriac.contracts.backend import Backend
from celeriac.errors import CeleriacError, DeliveryLost, EncodeError, ReplaceRequested
from celeriac.servers.offload import in_thread
from celeriac.settings import Settings
from celeriac.wire.result import STARTED, ResultRecord
from celeriac.worker.admission import Admission
from celeriac.worker.attempt import SPENT, Attempt, Reports
from celeriac.worker.bodies import Bodies
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Raised
from celeriac.worker.effects import Effects
from celeriac.worker.insist import Insist
from celeriac.worker.judging import Judge
from celeriac.worker.listeners import Listeners
from celeriac.worker.mending import Mending
from celeriac.worker.pool import NotBegun
from celeriac.worker.runnable import Runnable
from celeriac.worker.slots import Slots

logger = logging.getLogger("celeriac.worker")


class Executor:
    """Runs attempts for one worker, in the event loop that made it."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        tasks: Mapping[str, Runnable],
        admission: Admission,
        bodies: Bodies,
        judge: Judge,
        slots: Slots,
        effects: Effects,
        listeners: Listeners,
        mending: Mending,
        insist: Insist,
        node: str,
        state: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._tasks = tasks
        self._admission = admission
        self._bodies = bodies
        self._judge = judge
        self._slots = slots
        self._effects = effects
        self._listeners = listeners
        self._mending = mending
        self._insist = insist
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._state = state
        self._identity = {"pid": os.getpid(), "hostname": node}

    async def run(self, attempt: Attempt, running: set[Attempt]) -> None:
        """Deal with one delivery. Raises nothing; a cancelled attempt gives its message back.

        :param running: the attempts under way; this one is taken out at its end.
        """
        try:
            await self._admission.admit(attempt)
            if attempt.decision is None:
                self._begin(attempt)
                if not attempt.has_slot and not await self._gets_slot(attempt):
                    return
                if self._runs_once_at_most(attempt):
                    await self._effects.acknowledge(attempt)
                self._say_started(attempt)
                await self._bodies.call(attempt)
                if attempt.paused is None:
                    self._slots.body_done(attempt)
                if attempt.decision is None:
                    await self._decide(attempt)
            if attempt.paused is None:
                await self._land(attempt)
            else:
                await self._land_and_go_on(attempt, attempt.paused)
            self._listeners.settled(attempt)
        except DeliveryLost as lost:
            self._listeners.lost(attempt, lost)
        except asyncio.CancelledError:
            await self._effects.give_back(attempt.delivery)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this message alone
            await self._mending.set_aside(attempt, error)
        finally:
            self._slots.leave(attempt)
            running.discard(attempt)
            self._admission.leave(attempt)
            attempt.forget_frames()

    async def abandon(self) -> None:
        """Settle the messages of bodies that run on after their cancellation: those bodies end with the process."""
        for attempt in self._bodies.running():
            message = attempt.message
            logger.error(
                "%s[%s] does not let itself be cancelled and was abandoned", message.task, message.id
            )
            with suppress(CeleriacError):  # its lease will end
                if attempt.receipt is SPENT:
                    self._judge.abandon(attempt)
                    await self._effects.land(attempt)
                    self._listeners.settled(attempt)
                else:
                    await self._insist(attempt.receipt.requeue, "giving a message back")

    async def _gets_slot(self, attempt: Attempt) -> bool:
        """Return whether there is a slot, and the pool may have begun the body; else the message was given back."""
        try:
            await self._wait_for_slot(attempt)
        except NotBegun:
            self._slots.is_stuck = True
            await self._effects.give_back(attempt.delivery)
            return False
        attempt.started = perf_counter()
        return True

    async def _wait_for_slot(self, attempt: Attempt) -> None:
        """Raises ``NotBegun`` where it takes too long, and when the worker stops."""
        # What is acknowledged early would be lost if the worker were killed before the child comes to it.
        may_place = self._slots.may_wait and not self._slots.free and not self._runs_once_at_most(attempt)
        if may_place and self._bodies.can_place(attempt) and await self._bodies.place(attempt):
            return
        await self._slots.turn(attempt)

    async def _decide(self, attempt: Attempt) -> None:
        task, context, ending = attempt.task, attempt.context, attempt.ending
        assert task is not None
        assert context is not None
        outside = task.conduct.outside
        if outside is not None and isinstance(ending, Raised):
            conclusion = Conclusion(partial(self._judge.decide, attempt))
            rest = await in_thread(partial(outside, context, ending.error, conclusion))
            attempt.decision, attempt.paused = conclusion.decision, _Rest(rest)
            return
        assert ending is not None
        replaces = type(ending) is Raised and isinstance(ending.error, ReplaceRequested)
        if replaces or context.joiners or not attempt.is_light:  # judging may take long
            attempt.decision = await in_thread(partial(self._judge.decide, attempt, ending))
        else:
            attempt.decision = self._judge.decide(attempt, ending)

    async def _land(self, attempt: Attempt) -> None:
        try:
            await self._effects.land(attempt)
        except EncodeError as error:
            await self._mending.land_failure(attempt, error)

    async def _land_and_go_on(self, attempt: Attempt, paused: Paused) -> None:
        """Record the ending of a body that waits for that, let it go on, and settle the message when it is done."""
        refused: Exception | None = None
        try:
            await self._effects.record(attempt)
        except EncodeError as error:
            await self._mending.record_failure(attempt, error)
            refused = error
        finally:
            with suppress(asyncio.CancelledError):  # what it still does is cut short; its ending is on record
                await paused.resume(refused)
            self._slots.body_done(attempt)
        await self._effects.settle(attempt)

    def _begin(self, attempt: Attempt) -> None:
        """Set the task, and the context that its body gets."""
        attempt.task = task = self._tasks[attempt.message.task]
        attempt.reports = Reports(self._backend, self._loop, self._listeners.reported)
        attempt.context = Context(
            attempt.message,
            queue=attempt.delivery.queue,
            report=attempt.reports,
            worker=self._node,
            redelivered=attempt.delivery.redelivered,
            state=self._state,
        )
        if task.conduct.concludes:
            gone = self._runs_once_at_most(attempt)
            attempt.conclusion = Conclusion(partial(self._judge.decide, attempt), attempt.tag, gone=gone)

    def _runs_once_at_most(self, attempt: Attempt) -> bool:
        assert attempt.task is not None
        return (attempt.task.options.delivery or self._settings.delivery) == "at_most_once"

    def _say_started(self, attempt: Attempt) -> None:
        """Tell the listeners that the body starts, and store STARTED where a setting asks for that."""
        message, task, reports = attempt.message, attempt.task, attempt.reports
        assert task is not None
        assert reports is not None
        tracked = task.options.track_started
        if self._settings.track_started if tracked is None else tracked:
            record = ResultRecord(
                task_id=message.id, status=STARTED, result=self._identity, reply_to=message.reply_to
            )
            reports(record)
        self._listeners.started(attempt)


class _Rest(Paused):
    """Work that follows an ending, done in a thread once the ending is on record."""

    def __init__(self, rest: Callable[[], None]) -> None:
        self._rest = rest

    async def resume(self, error: Exception | None) -> None:
        """Do the work; an error is logged, since the ending stands."""
        try:
            await in_thread(self._rest)
        except Exception:
            logger.exception("what follows the end of a task failed")
