"""Schedules that count elapsed time, and a single moment."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from math import floor

import msgspec

from celeriac.errors import ScheduleError
from celeriac.quantities import LONGEST, is_number
from celeriac.schedule.days import DAY, first_moment, local_day, offset_at, zone_name, zone_of

SHORTEST = 0.01
"""Seconds between two slots, at least: more often no server is to be asked."""


class Interval(msgspec.Struct, frozen=True, tag="interval", dict=True):
    """A fixed grid: the slots are whole multiples of ``every`` after the moment at which the entry was first seen.

    :param every: seconds between two slots.
    :param relative: the grid begins at a full second, minute, hour or day, whichever ``every`` is made of.
    :param tz: where days begin for ``relative``; ``None`` for UTC.
    """

    every: float
    relative: bool = False
    tz: str | None = None

    def __str__(self) -> str:
        return f"every {self.every:g} s" + (", on the full unit" if self.relative else "")

    def next(self, after: float, anchor: float = 0.0) -> float | None:
        """Return the first slot after a moment.

        :param anchor: when the entry was first seen.
        """
        if self.relative and self.every >= DAY:
            return self._next_day(after, anchor)
        start, step = self._grid(anchor)
        number = max(floor((after - start) / step), 1)
        # Rounded, so that each place computes the same number whatever it began with.
        while (slot := round(start + number * step, 6)) <= max(after, anchor):
            number += 1
        return slot

    def oddities(self) -> list[str]:
        """Nothing: an interval means what it says."""
        return []

    @cached_property
    def _zone(self) -> tzinfo:
        return zone_of(self.tz)

    def _grid(self, anchor: float) -> tuple[float, float]:
        if not self.relative or self.every < 1:
            return anchor, self.every
        unit = 3600 if self.every >= 3600 else 60 if self.every >= 60 else 1
        over = (anchor + offset_at(self._zone, anchor)) % unit
        return round(anchor - over), self.every // unit * unit

    def _next_day(self, after: float, anchor: float) -> float:
        days = int(self.every // DAY)
        first = local_day(self._zone, anchor)
        number = max((local_day(self._zone, after) - first) // days, 0)
        while (slot := first_moment(self._zone, first + number * days)) <= max(after, anchor):
            number += 1
        return float(slot)


class Once(msgspec.Struct, frozen=True, tag="once"):
    """A single moment.

    :param at: seconds since the epoch.
    """

    at: float

    def __str__(self) -> str:
        return f"once at {datetime.fromtimestamp(self.at, zone_of(None)):%Y-%m-%d %H:%M:%S} UTC"

    def next(self, after: float, anchor: float = 0.0) -> float | None:
        """Return the moment, if it is still ahead."""
        return self.at if self.at > after else None

    def oddities(self) -> list[str]:
        """Nothing: a moment means what it says."""
        return []


def interval(every: float | timedelta, *, relative: bool = False, tz: tzinfo | str | None = None) -> Interval:
    """Describe a run every so many seconds, on a fixed grid. Raises ``ScheduleError`` for what is no time."""
    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    if not is_number(seconds) or not SHORTEST <= seconds < LONGEST:
        raise ScheduleError(
            f"every={every!r:.100}: give seconds from {SHORTEST} to {LONGEST:g}, or a timedelta"
        )
    if not isinstance(relative, bool):
        raise ScheduleError(f"relative={relative!r:.100}: give True or False")
    return Interval(float(seconds), relative, None if tz is None else zone_name(tz))
