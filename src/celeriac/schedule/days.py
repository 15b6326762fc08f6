"""Local days of a time zone, and the changes of clocks in them.

Times of day are counted as on a wall: seconds since the epoch, as if the zone were UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celeriac.errors import ScheduleError

DAY = 86400
_HOUR = 3600
_EPOCH = 719163
"""The ordinal of 1970-01-01."""

_STRIDE = 6 * _HOUR
"""No zone changes its clocks twice within so many seconds."""


class Span(NamedTuple):
    """Time in which a zone's clocks are not changed: from ``start`` until before ``end``, UTC."""

    start: int
    end: int
    offset: int


def zone_of(name: str | None) -> tzinfo:
    """Return a time zone. Raises ``ScheduleError`` for a name that this system does not know."""
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(
            f"time zone {name!r:.100} is not known here: give a name such as 'Europe/Berlin' "
            "(where the system has no time zones, install tzdata)"
        ) from None


def zone_name(zone: tzinfo | str) -> str:
    """Return the name of a time zone, checked. Raises ``ScheduleError`` for one that has no name."""
    name = zone if isinstance(zone, str) else getattr(zone, "key", None) or getattr(zone, "zone", None)
    if name is None and zone.utcoffset(None) == UTC.utcoffset(None):  # type: ignore[union-attr]
        name = "UTC"
    if not isinstance(name, str):
        raise ScheduleError(f"time zone {zone!r:.100} has no name: give one such as 'Europe/Berlin'")
    zone_of(name)
    return name


def offset_at(zone: tzinfo, moment: float) -> int:
    """Return the seconds by which the clocks of a zone are ahead of UTC."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None
    return offset.days * DAY + offset.seconds


def midnight(ordinal: int) -> int:
    """Return the begin of a day, as on a wall."""
    return (ordinal - _EPOCH) * DAY


@lru_cache(maxsize=128)
def days_before_months(year: int) -> tuple[int, ...]:
    """Return the ordinals of the days before each month of a year begins, and of its last day."""
    return (*(date(year, month, 1).toordinal() - 1 for month in range(1, 13)), date(year, 12, 31).toordinal())


def local_day(zone: tzinfo, moment: float) -> int:
    """Return the ordinal of the local day."""
    return int((moment + offset_at(zone, moment)) // DAY) + _EPOCH


@lru_cache(maxsize=4096)  # all entries of a zone have the same days
def steady_offset(zone: tzinfo, ordinal: int) -> int | None:
    """Return the offset of a day, ``None`` if clocks are changed in it or within six hours of it."""
    wall = midnight(ordinal)
    offset = offset_at(zone, wall + DAY // 2)
    start = wall - offset
    for moment in (start - _STRIDE, start + DAY // 2, start + DAY + _STRIDE):
        if offset_at(zone, moment) != offset:
            return None
    return offset


@lru_cache(maxsize=1024)  # all entries of a zone have the same changes
def spans(zone: tzinfo, ordinal: int) -> tuple[Span, ...]:
    """Return what lies between the changes of clocks around a day, in order of time."""
    first = start = midnight(ordinal) - DAY
    end = first + 3 * DAY
    offset = offset_at(zone, start)
    found: list[Span] = []
    for moment in range(first + _STRIDE, end + 1, _STRIDE):
        if (later := offset_at(zone, moment)) != offset:
            change = _change(zone, moment - _STRIDE, moment)
            found.append(Span(start, change, offset))
            start, offset = change, later
    found.append(Span(start, end, offset))
    return tuple(found)


def first_moment(zone: tzinfo, ordinal: int) -> int:
    """Return when a local day begins; the next one, where a zone left the day out."""
    offset = steady_offset(zone, ordinal)
    if offset is not None:
        return midnight(ordinal) - offset
    moment = first_showing(spans(zone, ordinal), midnight(ordinal))
    assert moment is not None, "the spans reach beyond the day"
    return moment


def first_showing(between: Sequence[Span], wall: int) -> int | None:
    """Return when clocks first show a time; where they never do, the first moment after the gap."""
    for span in between:
        if span.start <= wall - span.offset < span.end:
            return wall - span.offset
    return min((span.start for span in between[1:] if span.start + span.offset > wall), default=None)


def _change(zone: tzinfo, before: int, after: int) -> int:
    """Return the first moment with the offset of ``after``."""
    offset = offset_at(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        if offset_at(zone, middle) == offset:
            after = middle
        else:
            before = middle
    return after
