"""The bodies that run in one worker: how they are started, how they end, how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from celeriac.client.revocations import Revoked
from celeriac.errors import WorkerLost
from celeriac.settings import Settings
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.calling import Calling
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Raised, Returned, Stopped
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.pool import Call, PlacingPool, Pool
from celeriac.worker.raised import as_exception
from celeriac.worker.slots import Slots

CUT_SHORT = "the worker stopped while it ran, and it is not to run twice"


class Bodies:
    """Starts and stops the bodies of attempts; each runs in the asyncio task of its attempt.

    :ivar limits: the soft and hard time limit in seconds of each task whose limits remote control changed, by name.
    """

    def __init__(self, calling: Calling, pool: Pool, settings: Settings, slots: Slots) -> None:
        self._calling = calling
        self._pool = pool
        self._settings = settings
        self._slots = slots
        self._places = pool if isinstance(pool, PlacingPool) else None
        self.limits: dict[str, tuple[float | None, float | None]] = {}
        self._running: dict[asyncio.Task[Any], Attempt] = {}
        self._forks = FORKS.count

    async def call(self, attempt: Attempt) -> None:
        """Run the body to its end. Raises ``CancelledError`` where the message is to be given back instead."""
        running = attempt.running
        assert running is not None
        self._running[running] = attempt
        try:
            value = await self._body(attempt)
            if attempt.conclusion is None:
                attempt.ending = Returned(value)
            else:
                _conclude(attempt, attempt.conclusion, value)
        except asyncio.CancelledError as error:
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
                raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending, not the worker's
            attempt.ending = Raised(as_exception(error))
        finally:
            del self._running[running]
        if self._forks != FORKS.count:
            end_copy(attempt.ending.error if isinstance(attempt.ending, Raised) else None)

    def can_place(self, attempt: Attempt) -> bool:
        """Whether the pool may have the body before there is a slot for it.

        A message that was delivered before may be one that kills its worker, so nothing is to be beside it.
        """
        task, places = attempt.task, self._places
        assert task is not None
        first = attempt.delivery.deliveries == 1
        return places is not None and first and places.places(1) > 0 and not task.is_coroutine

    async def place(self, attempt: Attempt) -> bool:
        """Give the body to the pool; return whether that took it, once it has begun and the attempt has a slot.

        Raises ``NotBegun`` where it was taken back. ``call`` must follow.
        """
        assert self._places is not None
        task, context, message = attempt.task, attempt.context, attempt.message
        assert task is not None
        assert context is not None
        try:
            args, kwargs = self._calling.bind(task, context, message.args, message.kwargs)
        except Exception:  # noqa: BLE001 - it is raised again when it is called
            return False
        soft, hard = self._limits(attempt)
        if soft is not None or hard is not None:
            context.deadline = monotonic() + min(limit for limit in (soft, hard) if limit is not None)
        attempt.call = call = Call(task, args, kwargs, context, soft, attempt.conclusion)
        call.begun = partial(self._slots.take, attempt)
        call.ended = partial(self._slots.body_done, attempt)
        if await self._places.place(call):
            return True
        attempt.call = None
        return False

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

    def _body(self, attempt: Attempt) -> Awaitable[Any]:
        task, context, message = attempt.task, attempt.context, attempt.message
        assert task is not None
        assert context is not None
        call = attempt.call
        if call is None:
            args, kwargs = self._calling.bind(task, context, message.args, message.kwargs)
        else:
            args, kwargs = call.args, call.kwargs
        soft, hard = self._limits(attempt)
        if soft is not None or hard is not None:
            context.deadline = monotonic() + min(limit for limit in (soft, hard) if limit is not None)
        if call is None and self._places is not None and not task.is_coroutine:
            call = Call(task, args, kwargs, context, soft, attempt.conclusion)
            call.ended = partial(self._slots.body_done, attempt)
        return self._calling(task, context, args, kwargs, soft, hard, attempt.conclusion, call)

    def _limits(self, attempt: Attempt) -> tuple[float | None, float | None]:
        """Return the soft and the hard time limit in seconds: the message's own, else the task's, else the app's."""
        assert attempt.task is not None
        message, options, settings = attempt.message, attempt.task.options, self._settings
        soft, hard = message.soft_time_limit, message.time_limit
        if attempt.task.name in self.limits:
            changed = self.limits[attempt.task.name]
            return (changed[0] if soft is None else soft), (changed[1] if hard is None else hard)
        if soft is None:
            soft = options.soft_timeout if options.soft_timeout is not None else settings.soft_time_limit
        if hard is None:
            hard = options.timeout if options.timeout is not None else settings.time_limit
        return soft, hard


def _conclude(attempt: Attempt, conclusion: Conclusion, value: Any) -> None:
    """Take over what the body itself decided; a body that decided nothing has only returned."""
    attempt.ending, attempt.decision = conclusion.ending or Returned(value), conclusion.decision
    if isinstance(value, Paused):
        attempt.paused = value
