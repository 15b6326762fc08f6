"""The bodies that run in one worker: how they are started, how they end, how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from types import CoroutineType
from typing import Any

from celeriac.client.revocations import Revoked
from celeriac.contracts.server import Delegating
from celeriac.errors import DeliveryLost, WorkerLost
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.calling import Calling
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Raised, Returned, Stopped
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.insist import Insist
from celeriac.worker.plans import Plans
from celeriac.worker.pool import Call, NotBegun, PlacingPool, Pool
from celeriac.worker.raised import as_exception
from celeriac.worker.slots import Slots
from celeriac.worker.soft_limit import SoftLimit

CUT_SHORT = "the worker stopped while it ran, and it is not to run twice"


class Bodies:
    """Starts and stops the bodies of attempts; each runs in the asyncio task of its attempt.

    :param delegating: lets the process that runs a body acknowledge its message.
    :param tell_soft_limit: called with the attempt and the seconds when the soft time limit of its body is over.
    :ivar limits: the soft and hard time limit in seconds of each task whose limits remote control changed, by name.
    """

    def __init__(
        self,
        calling: Calling,
        pool: Pool,
        plans: Plans,
        slots: Slots,
        insist: Insist,
        delegating: Delegating | None,
        tell_soft_limit: Callable[[Attempt, float], None],
    ) -> None:
        self._calling = calling
        self._pool = pool
        self._plans = plans
        self._slots = slots
        self._insist = insist
        self._delegating = delegating
        self._tell_soft_limit = tell_soft_limit
        self._places = pool if isinstance(pool, PlacingPool) else None
        self.limits: dict[str, tuple[float | None, float | None]] = {}
        self._running: dict[asyncio.Task[Any], Attempt] = {}
        self._forks = FORKS.count

    async def call(self, attempt: Attempt) -> None:
        """Run the body to its end, and free its slot unless it is paused.

        Raises ``CancelledError`` where the message is to be given back instead, and ``NotBegun`` where the body did not
        begin.
        """
        running = attempt.running
        assert running is not None
        self._running[running] = attempt
        try:
            call = attempt.call or self._call_of(attempt)
            value = await self._calling.begin(call)
            if type(value) is CoroutineType:
                value = await self._calling.go_on(call, value)
            if attempt.conclusion is None:
                attempt.ending = Returned(value)
            else:
                _conclude(attempt, attempt.conclusion, value)
        except asyncio.CancelledError as error:
            if not _is_ended(attempt, running, error):
                raise
        except NotBegun:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending, not the worker's
            attempt.ending = Raised(as_exception(error))
        finally:
            del self._running[running]
        if self._forks != FORKS.count:
            end_copy(attempt.ending.error if isinstance(attempt.ending, Raised) else None)
        if attempt.paused is None:
            self._slots.body_done(attempt)
        if attempt.call is not None and attempt.call.delegate is not None:
            await self._make_sure(attempt)

    async def wait_for_slot(self, attempt: Attempt) -> None:
        """Return once there is a slot; the pool may have begun the body by then, and ``call`` must follow.

        Raises ``NotBegun`` where that takes too long, and when the worker stops.
        """
        may_place = self._slots.may_wait and not self._slots.free
        try:
            if not (may_place and self._can_place(attempt) and await self._place(attempt)):
                await self._slots.turn(attempt)
                attempt.started = perf_counter()
        except NotBegun:
            self._slots.is_stuck = True
            raise

    def _can_place(self, attempt: Attempt) -> bool:
        """Whether the pool may have the body before there is a slot for it.

        A message that was delivered before may be one that kills its worker, so nothing is to be beside it.
        """
        task, places = attempt.task, self._places
        assert task is not None
        first = attempt.delivery.deliveries == 1
        if attempt.is_early and self._delegating is None:
            # Acknowledged ahead by the worker, it would be lost if that were killed before the child comes to it.
            return False
        return places is not None and first and places.places(1) > 0 and not task.is_coroutine

    async def _place(self, attempt: Attempt) -> bool:
        """Give the body to the pool; return whether that took it, once it has begun and the attempt has a slot.

        Raises ``NotBegun`` where it was taken back.
        """
        assert self._places is not None
        try:
            attempt.call = call = self._call_of(attempt)
        except Exception:  # noqa: BLE001 - it is raised again when it is called
            return False
        call.begun = partial(self._has_begun, attempt)
        if attempt.is_early and self._delegating is not None:
            call.delegate = self._delegating.delegate(attempt.receipt)
        if (call.delegate is not None or not attempt.is_early) and await self._places.place(call):
            self._begin_limits(attempt, call)
            if attempt.is_early:
                attempt.receipt = SPENT
            return True
        attempt.call = None
        return False

    def _begin_limits(self, attempt: Attempt, call: Call) -> None:
        """Let the limits of a call begin now; they begin anew where it was with the pool before it had a slot."""
        call.limit()
        if call.soft is not None:
            tell = partial(self._tell_soft_limit, attempt, call.soft)
            if attempt.soft_limit is not None:
                attempt.soft_limit.end()
            attempt.soft_limit = SoftLimit(call.soft, tell, lambda: attempt.ending is None)

    async def _make_sure(self, attempt: Attempt) -> None:
        """Acknowledge a message whose process ended without a word on whether it had done so."""
        acknowledge = partial(attempt.delivery.receipt.ack, surely=True)
        with suppress(DeliveryLost):  # it had
            await self._insist(acknowledge, "acknowledging a message whose process ended")

    def leave(self, call: Call) -> None:
        """Tell the pool that all is over with a call that was placed."""
        assert self._places is not None
        self._places.recorded(call)

    def recall(self) -> None:
        """Take back from the pool what has not begun."""
        if self._places is not None:
            self._places.recall()

    def running(self) -> Sequence[Attempt]:
        """Return the attempts whose bodies run."""
        return list(self._running.values())

    def stop_all(self) -> int:
        """Cancel every body; return how many messages that gives back."""
        for running in self._running:
            running.cancel()
        return sum(attempt.receipt is not SPENT for attempt in self._running.values())

    def stop_revoked(self, revoked: Revoked) -> None:
        """Cancel the bodies whose tasks were revoked meanwhile, as far as the pool can stop them."""
        for attempt in list(self._slots.waiting):
            if attempt.call is not None and self._places is not None and revoked.names(attempt.message):
                self._places.recall(attempt.call)
        for running, attempt in self._running.items():
            message = attempt.message
            if attempt.revoked or not revoked.names(message):
                continue
            is_coroutine = attempt.task is not None and attempt.task.is_coroutine
            if is_coroutine or (self._pool.can_stop and revoked.kills(message)):
                attempt.revoked = True
                running.cancel()

    def _call_of(self, attempt: Attempt) -> Call:
        """Return the call that the attempt's message asks for. Raises ``ArgumentError``.

        A limit in seconds is the message's own, else the one that remote control set, else the task's, else the app's.
        """
        task, context, message = attempt.task, attempt.context, attempt.message
        assert task is not None
        assert context is not None
        plan = self._plans[task]
        args, kwargs = task.arguments.bind(message.args, message.kwargs)
        if plan.takes_context:
            task.arguments.inject(context, args, kwargs)
        soft, hard = plan.soft, plan.hard
        if self.limits:
            soft, hard = self.limits.get(task.name, (soft, hard))
        if message.soft_time_limit is not None:
            soft = message.soft_time_limit
        if message.time_limit is not None:
            hard = message.time_limit
        call = Call(task, args, kwargs, context, soft, attempt.conclusion, hard)
        if soft is not None or hard is not None:
            self._begin_limits(attempt, call)
        if self._places is not None and not task.is_coroutine:
            call.ended = partial(self._has_ended, attempt)
        return call

    def _has_begun(self, attempt: Attempt) -> None:
        attempt.started = perf_counter()
        self._slots.take(attempt)

    def _has_ended(self, attempt: Attempt, seconds: float) -> None:
        attempt.started = perf_counter() - seconds  # the answers of several may be read at once
        self._slots.body_done(attempt)


def _is_ended(attempt: Attempt, running: asyncio.Task[None], error: asyncio.CancelledError) -> bool:
    """Set the ending of a body that was cancelled; return whether it has one: else its message is given back."""
    if attempt.revoked:
        running.uncancel()
        attempt.ending = Stopped()
    elif not running.cancelling():
        attempt.ending = Raised(as_exception(error))
    elif attempt.receipt is SPENT:
        # The message was acknowledged before the run, so no worker gets it again: its caller gets a failure.
        running.uncancel()
        attempt.ending = Raised(WorkerLost(CUT_SHORT))
    else:
        return False
    return True


def _conclude(attempt: Attempt, conclusion: Conclusion, value: Any) -> None:
    """Take over what the body itself decided; a body that decided nothing has only returned."""
    attempt.ending, attempt.decision = conclusion.ending or Returned(value), conclusion.decision
    if isinstance(value, Paused):
        attempt.paused = value
