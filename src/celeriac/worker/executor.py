"""Runs one attempt from start to finish, as a straight line.

Rules: every effect that must land goes through ``effects``. A void receipt ends the attempt. No exception leaves
``run``, so that one attempt cannot end another, or the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from celeriac.context import Context
from celeriac.errors import DeliveryLost, EncodeError
from celeriac.wire.result import SUCCESS
from celeriac.worker.admission import Admission
from celeriac.worker.attempt import Attempt
from celeriac.worker.bodies import Bodies
from celeriac.worker.builtin import Repertoire
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.effects import Effects
from celeriac.worker.judging import Judge
from celeriac.worker.listeners import Listeners
from celeriac.worker.mending import Mending
from celeriac.worker.plans import Plans
from celeriac.worker.pool import NotBegun
from celeriac.worker.reports import Reports
from celeriac.worker.slots import Slots


class Executor:
    """Runs attempts for one worker, in the event loop that made it."""

    def __init__(
        self,
        plans: Plans,
        reports: Reports,
        tasks: Repertoire,
        admission: Admission,
        bodies: Bodies,
        judge: Judge,
        slots: Slots,
        effects: Effects,
        listeners: Listeners,
        mending: Mending,
        node: str,
        state: Mapping[str, Any],
    ) -> None:
        self._plans = plans
        self._reports = reports
        self._find = tasks.find
        self._admission = admission
        self._bodies = bodies
        self._judge = judge
        self._slots = slots
        self._effects = effects
        self._listeners = listeners
        self._mending = mending
        self._node = node
        self._state = state

    async def run(self, attempt: Attempt, running: set[Attempt]) -> None:
        """Deal with one delivery. Raises nothing; a cancelled attempt gives its message back.

        :param running: the attempts under way; this one is taken out at its end.
        """
        try:
            if (waiting := self._admission.admit(attempt)) is not None:
                await waiting
            if attempt.decision is None:
                self._begin(attempt)
                if attempt.is_early or attempt.is_tracked or not attempt.has_slot:
                    await self._make_ready(attempt)
                self._listeners.started(attempt)
                await self._bodies.call(attempt)
                if attempt.decision is None and (judging := self._judge.judge(attempt)) is not None:
                    await judging
            if attempt.paused is None:
                try:
                    await self._effects.land(attempt)
                except EncodeError as error:
                    await self._mending.land_failure(attempt, error)
            else:
                await self._land_and_go_on(attempt, attempt.paused)
            self._listeners.settled(attempt)
        except DeliveryLost as lost:
            self._listeners.lost(attempt, lost)
        except (asyncio.CancelledError, NotBegun):
            await self._effects.give_back(attempt.delivery)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this message alone
            await self._mending.set_aside(attempt, error)
        finally:
            running.discard(attempt)
            self._leave(attempt)

    async def abandon(self) -> None:
        """Settle the messages of bodies that run on after their cancellation: those bodies end with the process."""
        for attempt in self._bodies.running():
            await self._mending.abandon(attempt)

    def _begin(self, attempt: Attempt) -> None:
        """Set the task and what its options say of the run, and the context that its body gets."""
        message, delivery = attempt.message, attempt.delivery
        attempt.task = task = self._find(message.task)
        assert task is not None
        plan = self._plans[task]
        # In the order of the parameters: looking the names up would cost as much again.
        attempt.context = Context(
            message, delivery.queue, self._reports, self._node, None, delivery.redelivered, self._state
        )
        attempt.is_early, attempt.is_tracked = plan.is_early, plan.is_tracked
        if plan.concludes:
            decide = partial(self._judge.decide, attempt)
            attempt.conclusion = Conclusion(decide, delivery.envelope.delivery_tag, gone=plan.is_early)

    async def _make_ready(self, attempt: Attempt) -> None:
        """Wait for a slot, and do what the task's options ask for before the body runs."""
        if not attempt.has_slot:
            await self._bodies.wait_for_slot(attempt)
        if attempt.is_early or attempt.is_tracked:
            await self._effects.begin(attempt)

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

    def _leave(self, attempt: Attempt) -> None:
        if attempt.call is not None:
            self._bodies.leave(attempt.call)
        self._slots.leave(attempt)
        if attempt.soft_limit is not None:
            attempt.soft_limit.end(was_reached=attempt.has_reached_soft_limit)
            attempt.soft_limit = None  # which refers to the attempt
        if attempt.is_last_chance:
            self._admission.leave(attempt)
        if attempt.decision is None or attempt.decision.state != SUCCESS:
            attempt.forget_frames()
