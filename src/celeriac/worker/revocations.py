"""What this worker knows of revoked tasks.

Rules: the list lives with the broker; a copy is loaded when its revision has changed, which every take tells. While
bodies run, it is asked for once a second, so that a running task is stopped within about that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from celeriac.client.revocations import Revocations, Revoked
from celeriac.errors import BrokerError

logger = logging.getLogger("celeriac.worker")

LOOK_EVERY = 1.0
"""Seconds between two looks while something runs."""


class RevocationList:
    """A copy of the broker's revocations."""

    def __init__(self, source: Revocations) -> None:
        self._source = source
        self.revoked = Revoked()

    async def refresh(self, revision: int) -> None:
        """Load the list again if ``revision`` is not that of the copy. Raises ``BrokerError``."""
        if revision != self.revoked.revision:
            self.revoked = await self._source.load()

    async def watch(self, is_busy: Callable[[], bool], changed: Callable[[], None]) -> None:
        """While ``is_busy``, look for new revocations; call ``changed`` when there are some. Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not is_busy():
                continue
            try:
                revision = await self._source.revision()
                if revision != self.revoked.revision:
                    await self.refresh(revision)
            except BrokerError as error:
                logger.debug("cannot look for revocations now: %s", error)
            changed()
