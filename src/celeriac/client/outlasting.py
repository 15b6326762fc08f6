"""Follows tasks through outages of their result store.

Rules: an outage is no answer: whoever waits goes on waiting, within its own time; what the store refuses is raised. The
log has one warning of an outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection

from celeriac.backend import Backend
from celeriac.errors import BackendUnavailable
from celeriac.retry import Backoff
from celeriac.wire.result import ResultRecord

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries while the store is away."""

logger = logging.getLogger("celeriac.result")


class Outages:
    """Tells the log of an outage once, however many results are waited for."""

    def __init__(self) -> None:
        self._told = False

    def meet(self, error: BackendUnavailable) -> None:
        """Somebody who waits could not ask."""
        if not self._told:
            self._told = True
            if not error.logged:
                logger.warning("results are waited for, but cannot be asked for; going on: %s", error)

    def end(self) -> None:
        """Somebody could."""
        self._told = False


class Outlasting:
    """What becomes of some tasks, asked of a store that may be away meanwhile.

    :param outages: shared by all who wait for results of one app.
    """

    def __init__(self, backend: Backend, task_ids: Collection[str], outages: Outages) -> None:
        self._outages = outages
        self._backend = backend
        self._pending = set(task_ids)
        self.outage: BackendUnavailable | None = None
        """Why the store cannot be asked just now."""

    async def records(self) -> AsyncGenerator[ResultRecord, None]:
        """Yield every record as ``Backend.follow`` does; after an outage the present one of each task comes again."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                async with self._backend.follow(tuple(self._pending)) as records:
                    self.outage = None
                    backoff.reset()
                    self._outages.end()
                    async for record in records:
                        if record.ready:
                            self._pending.discard(record.task_id)
                        yield record
                return
            except BackendUnavailable as error:
                self.outage = error
                self._outages.meet(error)
            await asyncio.sleep(backoff.pause())
