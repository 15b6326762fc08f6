"""Repeats an effect that must land while its service is away.

Rules: unless the caller names other errors, only an "unavailable" error leads to another try. Every other error is
raised to the caller, ``DeliveryLost`` (a void receipt) included. At shutdown there is a deadline. The log has one
warning at the start of an outage and one more each half minute, however many effects wait for its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from celeriac.errors import BackendUnavailable, BrokerUnavailable
from celeriac.retry import Backoff

R = TypeVar("R")

UNAVAILABLE = (BrokerUnavailable, BackendUnavailable)

_QUIET = 30.0
"""Seconds between two warnings of one outage."""

logger = logging.getLogger("celeriac.worker")


class Insist:
    """Runs effects until they land.

    :param first: seconds before the second try; doubles up to ``cap``, with jitter, so that a fleet does not come
        back as one.
    """

    def __init__(self, first: float = 0.05, cap: float = 5.0) -> None:
        self._first = first
        self._cap = cap
        self._deadline: float | None = None
        self._failing = 0
        self._quiet_until: dict[type[Exception], float] = {}

    async def __call__(
        self,
        effect: Callable[[], Awaitable[R]],
        what: str | Callable[[], str],
        passing: tuple[type[Exception], ...] = UNAVAILABLE,
    ) -> R:
        """Await ``effect()`` until it does not raise "unavailable"; ``what`` names it in the log, or returns its name.

        :param passing: the classes of errors after which the effect is tried again; other errors are raised.
        """
        try:
            return await effect()
        except passing as error:
            return await self.again(effect, what, error, passing)

    def give_up_in(self, seconds: float) -> None:
        """Set a deadline for all effects, in so many seconds; an effect that misses it raises its last error."""
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def again(
        self,
        effect: Callable[[], Awaitable[R]],
        what: str | Callable[[], str],
        error: Exception,
        passing: tuple[type[Exception], ...] = UNAVAILABLE,
    ) -> R:
        """Do the same for an effect that was tried once, and raised ``error``."""
        backoff = Backoff(self._first, self._cap)
        self._failing += 1
        try:
            while True:
                wait = backoff.pause()
                if self._past_deadline(wait):
                    raise error
                self._tell(what if isinstance(what, str) else what(), wait, error)
                await asyncio.sleep(wait)
                try:
                    return await effect()
                except passing as again:
                    error = again
        finally:
            self._failing -= 1
            if not self._failing:
                self._quiet_until.clear()

    def _tell(self, what: str, wait: float, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        level = logging.DEBUG
        if now >= self._quiet_until.get(type(error), now):
            self._quiet_until[type(error)] = now + _QUIET
            level = logging.WARNING
        logger.log(level, "%s failed, again in %.2f s: %s", what, wait, error)

    def _past_deadline(self, wait: float) -> bool:
        return self._deadline is not None and asyncio.get_running_loop().time() + wait > self._deadline
