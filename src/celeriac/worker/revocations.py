"""A worker's copy of the list of revoked tasks.

Rules: the broker keeps the list. Each take reports its revision, and the worker loads the list again when the revision
has changed. While bodies run, the worker also asks for the revision once a second, so that a revoked task that runs is
stopped within about a second. What this worker is about to store counts for it at once: the sender of the revocation
may have sent the task next, and that message may be here before the broker has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from celeriac.client.revocations import Revocations, Revoked
from celeriac.errors import BrokerError

logger = logging.getLogger("celeriac.worker")

MOST_TOLD, TOLD_FOR = 50_000, 10_800.0
"""How many ids that were received are kept, and for how many seconds, as in Celery."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the revision while a body runs."""


class RevocationList:
    """A copy of the broker's revocations, with the ids that Celery's workers sent to this one.

    :param monotonic: seconds of a clock that never goes back.
    :ivar taken: to be set when messages were taken, which may run from then on: an idle worker looks for nothing.
    """

    def __init__(self, source: Revocations, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._stored = Revoked()
        self._told: OrderedDict[str, float] = OrderedDict()
        self._ahead: list[Revoked] = []
        self.taken = asyncio.Event()
        self.revoked = Revoked()

    async def refresh(self, revision: int) -> None:
        """Load the list again unless the copy has this revision. Raises ``BrokerError``."""
        if revision != self._stored.revision:
            self._stored = await self._source.load()
            self._merge()

    async def look(self) -> None:
        """Learn what was revoked meanwhile. Raises ``BrokerError``."""
        await self.refresh(await self._source.revision())

    def hear(self, ids: Iterable[str]) -> None:
        """Take over ids that a worker of Celery keeps in its memory; keep them in this one's as long as Celery does."""
        now = self._monotonic()
        for id in ids:
            self._told.pop(id, None)
            self._told[id] = now
        while self._told and (
            len(self._told) > MOST_TOLD or next(iter(self._told.values())) < now - TOLD_FOR
        ):
            self._told.popitem(last=False)
        self._merge()

    @contextmanager
    def ahead(self, *, ids: Iterable[str] = (), stamps: Iterable[str] = ()) -> Iterator[None]:
        """Count these as revoked within the block, in which they are stored and looked up."""
        known = Revoked(ids=frozenset(ids), stamps=frozenset(stamps))
        self._ahead.append(known)
        self._merge()
        try:
            yield
        finally:
            self._ahead.remove(known)
            self._merge()

    def _merge(self) -> None:
        revoked = self._stored
        if self._told or self._ahead:
            ids = revoked.ids.union(self._told, *(known.ids for known in self._ahead))
            stamps = revoked.stamps.union(*(known.stamps for known in self._ahead))
            revoked = msgspec.structs.replace(revoked, ids=ids, stamps=stamps)
        self.revoked = revoked

    async def watch(self, is_busy: Callable[[], bool], changed: Callable[[], None]) -> None:
        """While ``is_busy``, look for new revocations; call ``changed`` when there are some. Runs until cancelled."""
        while True:
            if not is_busy():
                self.taken.clear()
                await self.taken.wait()
            await asyncio.sleep(LOOK_EVERY)
            if not is_busy():
                continue
            try:
                await self.look()
            except BrokerError as error:
                logger.debug("cannot look for revocations now: %s", error)
            changed()
