"""Follows tasks through outages of their result store.

Rules: a caller that waits goes on waiting through an outage, up to its own timeout. A refusal of the store is raised at
once. The log has one warning for each outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection

from celeriac.contracts.backend import Backend
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
        """Note that the store could not be asked."""
        if not self._told:
            self._told = True
            if not error.logged:
                logger.warning("results are waited for, but cannot be asked for; going on: %s", error)

    def end(self) -> None:
        """Note that the store could be asked again."""
        self._told = False


class Outlasting:
    """Follows some tasks in a store that may be away meanwhile.

    :param outages: shared by all waits for results of one app.
    """

    def __init__(self, backend: Backend, task_ids: Collection[str], outages: Outages) -> None:
        self._outages = outages
        self._backend = backend
        self._pending = set(task_ids)
        self.outage: BackendUnavailable | None = None
        """Why the store cannot be asked just now."""

    async def records(self) -> AsyncGenerator[ResultRecord, None]:
        """Yield every record as ``Backend.follow`` does. After an outage the latest record of each task comes again."""
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
