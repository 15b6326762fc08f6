"""Ticking as a part of a worker: a lifespan that runs the ticker beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from celeriac.beat.schedules import Schedules
from celeriac.beat.source import SourceTaken
from celeriac.beat.ticker import Ticker
from celeriac.worker.attachments import Attachments, Lifespan

logger = logging.getLogger("celeriac.beat")

_LAST_WORDS = 10.0
"""Seconds that a ticker has to end what it ticks when its worker stops."""


def ticking(schedules: Schedules) -> Lifespan:
    """Return the lifespan of a worker that ticks these periodic tasks."""

    async def tick() -> AsyncIterator[None]:
        ticker = schedules.ticker(beside_tasks=True)
        running = asyncio.create_task(_run(ticker), name="celeriac-beat")
        try:
            yield
        finally:
            ticker.stop()
            await asyncio.wait([running], timeout=_LAST_WORDS)
            running.cancel()

    return tick


async def _run(ticker: Ticker) -> None:
    try:
        await ticker.run()
    except SourceTaken as error:
        logger.error("no periodic tasks are ticked any more: %s", error)


def with_ticking(attachments: Attachments, schedules: Schedules) -> Attachments:
    """Return these attachments with the lifespan of a worker that ticks."""
    more = Attachments()
    more.workers = attachments.workers
    more.listeners = [*attachments.listeners]
    more.lifespans = [*attachments.lifespans, ticking(schedules)]
    more.child_lifespans = [*attachments.child_lifespans]
    more.log = attachments.log
    return more
