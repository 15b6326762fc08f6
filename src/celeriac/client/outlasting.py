"""Follows tasks through outages of their result store.

Rules: an outage is no answer: whoever waits goes on waiting, within its own time; what the store refuses is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection

from celeriac.backend import Backend
from celeriac.errors import BackendUnavailable
from celeriac.wire.result import ResultRecord

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries while the store is away."""

logger = logging.getLogger("celeriac.result")


class Outlasting:
    """What becomes of some tasks, asked of a store that may be away meanwhile."""

    def __init__(self, backend: Backend, task_ids: Collection[str]) -> None:
        self._backend = backend
        self._pending = set(task_ids)
        self.outage: BackendUnavailable | None = None
        """Why the store cannot be asked just now."""

    async def records(self) -> AsyncGenerator[ResultRecord, None]:
        """Yield every record as ``Backend.follow`` does; after an outage the present one of each task comes again."""
        pause = FIRST_PAUSE
        told = False
        while True:
            try:
                async with self._backend.follow(tuple(self._pending)) as records:
                    self.outage, pause = None, FIRST_PAUSE
                    async for record in records:
                        if record.ready:
                            self._pending.discard(record.task_id)
                        yield record
                return
            except BackendUnavailable as error:
                self.outage = error
            if not told:
                told = True
                logger.warning("results are waited for, but cannot be asked for; going on: %s", self.outage)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
