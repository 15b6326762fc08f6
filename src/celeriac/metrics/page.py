"""The page ``/metrics``: numbers of this process or of several, and those of the broker.

Rules: the page is made in a thread. The broker is asked in the event loop that its connections belong to. A loop that
is held up makes the page late by ``PATIENCE`` seconds, and the numbers of the broker are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import TimeoutError as TooLate

from celeriac.metrics.queues import BrokerNumbers, QueueReader
from celeriac.probes.serving import Page

PATIENCE = 0.6
"""Seconds for which a scrape waits for the event loop: longer than the loop waits for the broker."""


class MetricsPage:
    """Makes the page.

    :param text: makes the text of a scrape, and its content type, of the broker's numbers.
    :ivar reader: reads the broker's numbers.
    :ivar loop: the event loop in which the broker is asked; nothing is asked while there is none.
    """

    def __init__(self, text: Callable[[BrokerNumbers | None], tuple[bytes, str]]) -> None:
        self._text = text
        self.reader: QueueReader | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def page(self) -> Page:
        """Return the page; called in a thread."""
        text, content_type = self._text(self._numbers())
        return Page(200, text, content_type)

    def _numbers(self) -> BrokerNumbers | None:
        if self.loop is None or self.reader is None or self.loop.is_closed():
            return None
        reading = asyncio.run_coroutine_threadsafe(self.reader.read(), self.loop)
        try:
            return reading.result(PATIENCE)
        except TooLate:
            return None  # it goes on reading, for the next scrape
