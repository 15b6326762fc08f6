"""Slots of any schedule: those of a span of time, the latest ones, their jitter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import timedelta, tzinfo
from hashlib import blake2b
from typing import TypeAlias

import msgspec

from celeriac.errors import ScheduleError
from celeriac.quantities import is_number
from celeriac.schedule.crontab import Crontab, crontab_text
from celeriac.schedule.days import zone_name
from celeriac.schedule.interval import Interval, Once, interval
from celeriac.schedule.solar import Solar

Schedule: TypeAlias = Crontab | Interval | Solar | Once
"""A schedule: ``next(after, anchor)`` gives its slots one by one."""

_WINDOW = 60.0
"""Seconds before the end in which the latest slots are looked for first."""


def schedule_of(given: object, tz: tzinfo | str | None = None) -> Schedule:
    """Return the schedule that a user means: one of ours, seconds, a ``timedelta``, or the five fields of a crontab.

    :param tz: the time zone of a schedule that has none of its own.

    Raises ``ScheduleError`` for anything else.
    """
    if isinstance(given, Crontab | Interval):
        if tz is None or given.tz is not None:
            return given
        return msgspec.structs.replace(given, tz=zone_name(tz))
    if isinstance(given, Solar | Once):
        return given
    if isinstance(given, str):
        return crontab_text(given, tz)
    if isinstance(given, timedelta) or is_number(given):
        return interval(given, tz=tz)  # type: ignore[arg-type]
    raise ScheduleError(
        f"{given!r:.100} is no schedule: give seconds, a timedelta, crontab(...), solar(...) or '30 7 * * *'"
    )


def slots_between(schedule: Schedule, after: float, until: float, anchor: float) -> Iterator[float]:
    """Go over the slots after ``after``, up to and with ``until``."""
    slot = schedule.next(after, anchor)
    while slot is not None and slot <= until:
        yield slot
        slot = schedule.next(slot, anchor)


def latest_slots(schedule: Schedule, after: float, until: float, anchor: float, most: int) -> list[float]:
    """Return the last slots after ``after``, up to and with ``until``: at most so many, in order of time."""
    window = _WINDOW
    while True:
        start = max(after, until - window)
        found = deque(slots_between(schedule, start, until, anchor), maxlen=most)
        if len(found) == most or start == after:
            return list(found)
        window *= 4


def jitter_of(entry: str, slot: float, most: float) -> float:
    """Return by how many seconds a slot is to be late: 0 to ``most``, the same wherever it is asked."""
    if not most:
        return 0.0
    digest = blake2b(f"{entry} {slot!r}".encode(), digest_size=8).digest()
    return most * int.from_bytes(digest) / 2**64
