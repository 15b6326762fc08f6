"""A worker's copy of the list of revoked tasks.

Rules: the broker keeps the list. Each take reports its revision, and the worker loads the list again when the revision
has changed. While bodies run, the worker also asks for the revision once a second, so that a revoked task that runs is
stopped within about a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from celeriac.client.revocations import Revocations, Revoked
from celeriac.errors import BrokerError

logger = logging.getLogger("celeriac.worker")

LOOK_EVERY = 1.0
"""Seconds between two looks at the revision while a body runs."""


class RevocationList:
    """A copy of the broker's revocations."""

    def __init__(self, source: Revocations) -> None:
        self._source = source
        self.revoked = Revoked()

    async def refresh(self, revision: int) -> None:
        """Load the list again unless the copy has this revision. Raises ``BrokerError``."""
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
