"""What becomes of a message whose ending cannot be landed, or on which the worker itself failed.

Rules: the caller gets a failure as far as one can be written; the message is never given back, since it would fail
again without end.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import msgspec

from celeriac.errors import CeleriacError, EncodeError
from celeriac.wire.preview import preview
from celeriac.worker.admission import Admission
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.effects import Effects
from celeriac.worker.judging import Judge
from celeriac.worker.listeners import Listeners

logger = logging.getLogger("celeriac.worker")


class Mending:
    """Lands a failure in place of what cannot be landed."""

    def __init__(self, admission: Admission, judge: Judge, effects: Effects, listeners: Listeners) -> None:
        self._admission = admission
        self._judge = judge
        self._effects = effects
        self._listeners = listeners

    async def land_failure(self, attempt: Attempt, error: EncodeError) -> None:
        """Fail the task, because the servers cannot carry its result or its follow-ups.

        If they cannot carry the failure either, it is recorded without the arguments, which may be too large.
        """
        self._judge.fail_instead(attempt, error)
        try:
            await self._effects.land(attempt)
        except EncodeError as again:
            attempt.message = msgspec.structs.replace(attempt.message, args=[], kwargs={})
            self._judge.fail_instead(attempt, again)
            await self._effects.land(attempt)

    async def record_failure(self, attempt: Attempt, error: EncodeError) -> None:
        """Do as ``land_failure``, without settling the message."""
        self._judge.fail_instead(attempt, error)
        try:
            await self._effects.record(attempt)
        except EncodeError as again:
            attempt.message = msgspec.structs.replace(attempt.message, args=[], kwargs={})
            self._judge.fail_instead(attempt, again)
            await self._effects.record(attempt)

    async def set_aside(self, attempt: Attempt, error: Exception) -> None:
        """Bury a message on which the worker itself failed, and give its caller a failure."""
        self._listeners.failed(attempt, error)
        told = await self._tell_of(attempt, error)
        await self._effects.bury(attempt.delivery, f"the worker failed: {preview(error)}")
        if not told:
            await self._tell_of(attempt, error)

    async def abandon(self, attempt: Attempt) -> None:
        """Settle the message of a body that does not let itself be cancelled."""
        message = attempt.message
        logger.error("%s[%s] does not let itself be cancelled and was abandoned", message.task, message.id)
        if attempt.receipt is not SPENT:
            await self._effects.give_back(attempt.delivery)
            return
        with suppress(CeleriacError):
            self._judge.abandon(attempt)
            await self._effects.land(attempt)
            self._listeners.settled(attempt)

    async def _tell_of(self, attempt: Attempt, error: Exception) -> bool:
        """Store a failure for the caller; return ``False`` where that fails, too."""
        with suppress(Exception):
            self._admission.read_again(attempt)
            self._judge.fail(attempt, error)
            assert attempt.decision is not None
            await self._effects.tell(attempt.decision)
            return True
        return False
