"""Time limits for coroutines.

Rules: the soft limit cancels the body. The body may clean up until the hard limit, and a value that it then returns is
its result, as for a plain function. At the hard limit the body is abandoned, whatever it does. A body without limits is
awaited directly, at no cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from celeriac.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from celeriac.worker.raised import forget_frames

R = TypeVar("R")

logger = logging.getLogger("celeriac.worker")

CLEAN_UP = 5.0
"""Seconds that a cancelled body has to clean up where it has no hard limit."""


async def bounded(body: Coroutine[Any, Any, R], soft: float | None, hard: float | None) -> R:
    """Await ``body`` for ``soft`` and ``hard`` seconds at the most.

    Raises ``SoftTimeLimitExceeded`` or ``TimeLimitExceeded`` with the limit as argument. Otherwise returns or raises
    what the body does.
    """
    first = soft if hard is None or (soft is not None and soft < hard) else hard
    assert first is not None
    running = asyncio.ensure_future(body)
    try:
        await asyncio.wait([running], timeout=first)
        if running.done():
            return running.result()
        return await _stop(running, first, soft, hard)
    except asyncio.CancelledError:
        running.cancel()
        raise


async def _stop(running: asyncio.Future[R], passed: float, soft: float | None, hard: float | None) -> R:
    running.cancel()
    is_soft = passed == soft
    left = CLEAN_UP if hard is None or not is_soft else hard - passed
    await asyncio.wait([running], timeout=left)
    if not running.done():
        logger.error("a task's coroutine went on after its time limit and was abandoned: %r", running)
        running.add_done_callback(_forget)
        raise TimeLimitExceeded(hard if hard is not None else passed)
    if not running.cancelled() and (error := running.exception()) is not None:
        # The body raised an error of its own while it was being stopped, which says more than the limit does.
        raise error
    if is_soft and not running.cancelled():
        return running.result()
    raise SoftTimeLimitExceeded(soft) if is_soft else TimeLimitExceeded(hard)


def _forget(running: asyncio.Future[Any]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        forget_frames(error)
