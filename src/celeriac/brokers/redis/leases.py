"""Keeps what this process holds from being taken for lost.

Rules: a thread with its own connection renews, so that a busy event loop does not; it asks nothing while nothing is
held. Code that keeps the interpreter lock for longer than a lease (a long C call) still loses its messages to peers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable

from celeriac.brokers.redis.keys import Keys
from celeriac.brokers.redis.scripts import RENEW
from celeriac.errors import CeleriacError
from celeriac.redis_link import BlockingLine, Link

_log = logging.getLogger("celeriac.broker.redis")

_BATCH = 1000
_RENEWALS_PER_LEASE = 3


class LeaseKeeper:
    """Renews the leases of all deliveries that one broker holds.

    :param lease: seconds that a lease lasts.
    """

    def __init__(self, link: Link, keys: Keys, lease: float) -> None:
        self._link = link
        self._keys = keys
        self.lease = lease
        self._held: set[str] = set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, tags: Iterable[str]) -> None:
        """Renew these from now on."""
        self._held.update(tags)
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._keep, name="celeriac-leases", daemon=True)
            self._thread.start()

    def release(self, tags: Iterable[str]) -> None:
        """Renew these no longer."""
        self._held.difference_update(tags)

    async def close(self) -> None:
        """Stop renewing; what is still held becomes a peer's when its lease ends."""
        self._held.clear()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            await asyncio.to_thread(thread.join)

    def _keep(self) -> None:
        pause = self.lease / _RENEWALS_PER_LEASE
        line: BlockingLine | None = None
        while not self._closing.wait(pause):
            pause = self.lease / _RENEWALS_PER_LEASE
            held = tuple(self._held)
            if not held:
                continue
            try:
                line = line or self._link.open_blocking_line()
                self._renew(line, held)
            except CeleriacError as error:
                pause = min(1.0, pause / 4)
                _log.warning("leases of %d messages could not be renewed, trying again: %s", len(held), error)
        if line is not None:
            line.close()

    def _renew(self, line: BlockingLine, held: tuple[str, ...]) -> None:
        for start in range(0, len(held), _BATCH):
            line.run(
                RENEW, (self._keys.index, self._keys.leases), (self.lease, *held[start : start + _BATCH])
            )
