"""The logical clock of a worker: it counts the events and requests received and sent (Lamport's, as in Celery)."""

from __future__ import annotations


class LogicalClock:
    """Counts requests, answers and events."""

    def __init__(self) -> None:
        self.value = 1

    def adjust(self, other: int) -> None:
        """Advance to the time after ``other``, if that is ahead."""
        self.value = max(self.value, other) + 1

    def forward(self) -> int:
        """Advance by one and return the time."""
        self.value += 1
        return self.value
