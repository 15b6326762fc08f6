"""Delays a message that its task rejects again and again with ``requeue=True``.

Rules: the first rejection requeues the message at once, perhaps for another worker. Each further rejection doubles the
delay, since a message that came back at once every time would keep a core busy for nothing.
"""

from __future__ import annotations

from random import random

from celeriac.retry import Retry

AGAIN = Retry(backoff=0.1, cap=60.0, jitter=False)
"""The delays, from that after the second rejection on."""

MOST = 50_000
"""The most messages that are remembered; the one whose rejection is the oldest is forgotten first."""


class Rejections:
    """Counts the rejections of each message in one worker."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def note(self, message_id: str) -> float:
        """Count one rejection; return the seconds until the message should be queued again."""
        before = self._counts.pop(message_id, 0)
        self._counts[message_id] = before + 1
        if len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]
        if before == 0:
            return 0.0
        return AGAIN.delay(before, random)
