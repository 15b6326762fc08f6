"""The page ``/metrics``: numbers of this process or of several, and those of the broker.

Rules: the page is made in a thread. The broker is asked in the event loop that its connections belong to. A loop that
is held up makes the page late by ``PATIENCE`` seconds, and the numbers of the broker are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import TimeoutError as TooLate

from celeriac.metrics.counts import Snapshot
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.queues import BrokerNumbers, QueueReader
from celeriac.probes.pages import Page

PATIENCE = 0.6
"""Seconds for which a scrape waits for the event loop: longer than the loop waits for the broker."""


class MetricsPage:
    """Makes the page.

    :param snapshot: returns the numbers of the process, or of all processes.
    :ivar loop: the event loop in which the broker is asked; nothing is asked while there is none.
    """

    def __init__(
        self, exposition: Exposition, snapshot: Callable[[], Snapshot], reader: QueueReader | None = None
    ) -> None:
        self._exposition = exposition
        self._snapshot = snapshot
        self.reader = reader
        self.loop: asyncio.AbstractEventLoop | None = None

    def page(self) -> Page:
        """Return the page; called in a thread."""
        numbers = self._numbers()
        text, content_type = self._exposition.text(self._snapshot(), numbers)
        return Page(200, text, content_type)

    def _numbers(self) -> BrokerNumbers | None:
        if self.loop is None or self.reader is None or self.loop.is_closed():
            return None
        reading = asyncio.run_coroutine_threadsafe(self.reader.read(), self.loop)
        try:
            return reading.result(PATIENCE)
        except TooLate:
            return None  # it goes on reading, for the next scrape
