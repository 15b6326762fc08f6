"""How long a message waits that its task rejects again and again, asking for it to be queued.

Rules: the first time it goes back at once, perhaps to another worker; after that each time twice as long as the last,
since a message that comes back at once would keep a processor busy for nothing.
"""

from __future__ import annotations

FIRST, LONGEST = 0.1, 60.0
"""Seconds that the second rejection makes it wait, and that any does at the most."""

MOST = 50_000
"""Messages remembered; the one that was rejected longest ago is forgotten first."""


class Rejections:
    """Counts the rejections of each message in one worker."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def note(self, message_id: str) -> float:
        """Count one more; return the seconds until the message should be queued again."""
        before = self._counts.pop(message_id, 0)
        self._counts[message_id] = before + 1
        if len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]
        if before == 0:
            return 0.0
        return min(FIRST * 2.0 ** min(before - 1, 30), LONGEST)
