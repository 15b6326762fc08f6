"""A schedule by minute, hour and day, as a clock on the wall shows them.

Clock changes are dealt with as Debian's cron does, see crontab(5) and cron(8) there: a time that is skipped runs once,
at the first moment after the gap; a time that comes twice runs the first time. A schedule whose minute or hour begins
with ``*`` follows the clock instead: it does not run in the gap, and runs in both passes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import date, tzinfo
from functools import cached_property, lru_cache
from math import floor

import msgspec

from celeriac.errors import ScheduleError
from celeriac.schedule.days import (
    Span,
    days_before_months,
    local_day,
    midnight,
    spans,
    steady_offset,
    zone_name,
    zone_of,
)
from celeriac.schedule.fields import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH_OF_YEAR,
    Field,
    field_text,
    read_field,
)

_LEAP_YEAR = 2024

_YEARS = 60
"""Years to search: a 29 February that must be a given day of the week may be 40 years ahead."""


class Crontab(msgspec.Struct, frozen=True, tag="crontab", dict=True):
    """A crontab; make one with ``crontab``, which checks the fields.

    :param tz: the name of its time zone, ``None`` for UTC.
    """

    minute: str = "*"
    hour: str = "*"
    day_of_week: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"
    tz: str | None = None

    def __str__(self) -> str:
        fields = self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week
        return " ".join(fields) + (f" {self.tz}" if self.tz else "")

    def next(self, after: float, anchor: float = 0.0) -> float | None:
        """Return the first slot after a moment; ``None`` if there is none within 60 years."""
        zone = self._zone
        today = local_day(zone, after)
        todays = steady_offset(zone, today)
        for ordinal in self._days_from(today - 1 if todays is None else today):
            offset = todays if ordinal == today else steady_offset(zone, ordinal)
            if (slot := self._next_on(ordinal, offset, after)) is not None:
                return float(slot)
        return None

    @property
    def comes(self) -> bool:
        """Whether any of the days is in a calendar."""
        _, days, months = self._days
        return any(days[0] <= monthrange(_LEAP_YEAR, month)[1] for month in months)

    def oddities(self) -> list[str]:
        """Say which parts mean something else than they seem to say, and what."""
        return [
            f"{unit.name}: {oddity}"
            for unit, text in zip(_UNITS, self.texts, strict=True)
            for oddity in read_field(unit, text).oddities
        ]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The fields, in the order of Celery's arguments."""
        return self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year

    @cached_property
    def _zone(self) -> tzinfo:
        return zone_of(self.tz)

    @cached_property
    def _follows_clock(self) -> bool:
        return self.minute.startswith("*") or self.hour.startswith("*")

    @cached_property
    def _times(self) -> tuple[int, ...]:
        return _times_of(self.hour, self.minute)

    @cached_property
    def _days(self) -> tuple[frozenset[int], tuple[int, ...], tuple[int, ...]]:
        return (
            frozenset(read_field(DAY_OF_WEEK, self.day_of_week).numbers),
            read_field(DAY_OF_MONTH, self.day_of_month).numbers,
            read_field(MONTH_OF_YEAR, self.month_of_year).numbers,
        )

    def _days_from(self, ordinal: int) -> Iterator[int]:
        """Go over the days on which this runs, by their ordinals."""
        weekdays, days, months = self._days
        start = date.fromordinal(ordinal)
        for year in range(start.year, start.year + _YEARS):
            before = days_before_months(year)
            for month in months:
                if year == start.year and month < start.month:
                    continue
                first = before[month - 1]
                for day in days[: bisect_right(days, before[month] - first)]:
                    if first + day >= ordinal and (first + day) % 7 in weekdays:
                        yield first + day

    def _runs_on(self, ordinal: int) -> bool:
        weekdays, days, months = self._days
        day = date.fromordinal(ordinal)
        return ordinal % 7 in weekdays and day.day in days and day.month in months

    def _next_on(self, ordinal: int, offset: int | None, after: float) -> int | None:
        """Return the first slot after a moment among those of a day.

        :param offset: of the day, ``None`` if clocks are changed around it.
        """
        if offset is not None:
            start = midnight(ordinal) - offset
            position = bisect_left(self._times, floor((after - start) / 60) + 1)
            return start + 60 * self._times[position] if position < len(self._times) else None
        between = spans(self._zone, ordinal)
        # Clocks that are put back across midnight show the end of this day after the begin of the next.
        ordinals = [day for day in (ordinal, ordinal + 1) if self._runs_on(day)]
        found = [self._next_in(between, day, after) for day in ordinals]
        return min((slot for slot in found if slot is not None), default=None)

    def _next_in(self, between: Sequence[Span], ordinal: int, after: float) -> int | None:
        """Return the first slot after a moment for the times of a day, where clocks are changed around it."""
        start, earliest = midnight(ordinal), floor(after) + 1
        shown = between[0].start + between[0].offset  # until when the clocks have shown each time before
        for span in between:
            begin = span.start + span.offset
            if not self._follows_clock:
                if shown < begin and span.start >= earliest and self._first(start, shown, begin) is not None:
                    return span.start
                begin = max(begin, shown)
            wall = self._first(start, max(begin, earliest + span.offset), span.end + span.offset)
            if wall is not None:
                return wall - span.offset
            shown = max(shown, span.end + span.offset)
        return None

    def _first(self, start: int, least: int, end: int) -> int | None:
        """Return the first time of a day that is not before ``least`` and before ``end``, as on a wall."""
        position = bisect_left(self._times, -((start - least) // 60))
        if position == len(self._times):
            return None
        wall = start + 60 * self._times[position]
        return wall if wall < end else None


@lru_cache(maxsize=1024)  # thousands of entries share a few texts
def _times_of(hour: str, minute: str) -> tuple[int, ...]:
    """Return the times of a day, in minutes."""
    hours, minutes = read_field(HOUR, hour).numbers, read_field(MINUTE, minute).numbers
    return tuple(60 * hour + minute for hour in hours for minute in minutes)


_UNITS = MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH_OF_YEAR


def crontab(
    minute: Field = "*",
    hour: Field = "*",
    day_of_week: Field = "*",
    day_of_month: Field = "*",
    month_of_year: Field = "*",
    *,
    tz: tzinfo | str | None = None,
) -> Crontab:
    """Describe the minutes at which a task runs; every field must match, days of the week and of the month alike.

    Each field is a number, several numbers, or text in Celery's syntax: ``'*/15'``, ``'8-18'``, ``'mon-fri'``,
    ``'1,15'``.

    :param minute: 0 to 59.
    :param hour: 0 to 23.
    :param day_of_week: 0, which is Sunday, to 6, or names.
    :param day_of_month: 1 to 31.
    :param month_of_year: 1 to 12, or names.
    :param tz: the time zone, such as ``'Europe/Berlin'``; the default is the app's.

    Raises ``ScheduleError``, a ``ConfigError`` and ``ValueError``, for a field that cannot be read and for a day that
    never comes.
    """
    given = minute, hour, day_of_week, day_of_month, month_of_year
    texts = [field_text(unit, field) for unit, field in zip(_UNITS, given, strict=True)]
    named = None if tz is None else zone_name(tz)
    schedule = Crontab(texts[0], texts[1], texts[2], texts[3], texts[4], named)
    if not schedule.comes:
        raise ScheduleError(
            f"crontab(day_of_month={texts[3]!r}, month_of_year={texts[4]!r}) is a day that never comes"
        )
    return schedule


def crontab_text(text: str, tz: tzinfo | str | None = None) -> Crontab:
    """Read five fields, as in a line of crontab: minute, hour, day of the month, month, day of the week.

    Raises as ``crontab`` does.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ScheduleError(
            f"crontab {text!r:.100} has {len(fields)} fields: give five, such as '30 7 * * *'"
        )
    minute, hour, day_of_month, month_of_year, day_of_week = fields
    return crontab(minute, hour, day_of_week, day_of_month, month_of_year, tz=tz)
