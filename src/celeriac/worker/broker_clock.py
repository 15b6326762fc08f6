"""The broker's clock, by which a worker judges the times in messages.

Rules: the broker delivers a parked message once it is due by the broker's own clock. A worker that judged the ETA by a
slower clock would park it again, and get it back at once, again and again. So a worker judges ETA and expiry, and
counts the countdown of a retry, by the broker's clock.
"""

from __future__ import annotations

from celeriac.clock import Clock


class BrokerClock:
    """Tells the broker's time.

    :param clock: the app's clock.
    :ivar ahead: seconds by which the broker's clock is ahead of the app's, according to the last take.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self.ahead = 0.0

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._now() + self.ahead
