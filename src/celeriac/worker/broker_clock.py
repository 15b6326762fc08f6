"""The clock that a worker judges the times in messages by: the broker's.

Rules: the broker gives out what is due by its own clock, and would give it out again and again to a worker that did not
believe it; so ETA and expiry are judged, and the countdown of a retry is counted, by that clock.
"""

from __future__ import annotations

from celeriac.clock import Clock


class BrokerClock:
    """Tells the broker's time.

    :param clock: the app's clock.
    :ivar ahead: seconds by which the broker's clock is ahead of it, as the last take told.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self.ahead = 0.0

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._now() + self.ahead
