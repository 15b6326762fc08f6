"""The clock by which slots are named: that of the server which keeps them, wherever it has one.

Rules: processes whose own clocks differ name the same slots. The server's time is carried on by this
process's monotonic clock, and is never ahead of the server's. Where the server has no clock of its own, the process's
counts.
"""

from __future__ import annotations

from celeriac.clock import Clock


class SlotClock:
    """Tells the time of the server.

    :param clock: the process's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: float | None = None

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._clock.now() if self._ahead is None else self._clock.monotonic() + self._ahead

    def at(self, monotonic: float) -> float:
        """Return what time it was at a moment of the monotonic clock."""
        return self.now() - (self._clock.monotonic() - monotonic)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return self._clock.monotonic()

    def heard(self, told: float | None, asked: float) -> None:
        """Note what time it was by the server's clock when it answered.

        :param asked: the moment of the monotonic clock before it was asked. It read its clock between then and now, so
            the difference of the two clocks is between two bounds, and what is within them is kept.
        """
        if told is None:
            return
        least, most = told - self._clock.monotonic(), told - asked
        if self._ahead is None or not least <= self._ahead <= most:
            self._ahead = least
