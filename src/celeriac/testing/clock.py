"""A clock that stands still until it is told to go on."""

from __future__ import annotations


class ManualClock:
    """A ``celeriac.clock.Clock`` for tests: ``Celeriac(..., clock=ManualClock())``.

    It is about what the app itself reads from the clock: ETA, expiry, countdown. How long something is waited for
    goes by the event loop; the leases and due times of a Redis, and a worker's verdict on ETA and expiry there, by the
    server's clock.

    :param now: seconds since the epoch to begin with.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since this clock was made."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds. Raises ``ValueError`` for fewer than 0: time does not go back."""
        if not seconds >= 0:
            raise ValueError(
                f"a clock cannot go on by {seconds!r} seconds; use set() to change the time of day"
            )
        self._now += seconds
        self._monotonic += seconds

    def set(self, now: float) -> None:
        """Change the time of day, as an administrator might; ``monotonic`` does not notice."""
        self._now = now
