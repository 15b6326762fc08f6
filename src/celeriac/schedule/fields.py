"""The fields of a crontab, read as Celery 5.7 reads them.

https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html#crontab-schedules describes the syntax. What Celery
accepts beyond that is accepted too, since schedules that work today must go on working; ``Reading.oddities`` says
where it does something else than it seems to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from celeriac.errors import ScheduleError

Field = int | str | Iterable[int]
"""What a user may give for one field."""

_RANGE = re.compile(r"(\w+?)-(\w+)(?:(/)(\w+)?)?")
_STAR_STEP = re.compile(r"\*/(\w+)?")
_STAR = re.compile(r"\*$")

_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6} | {
    "jul": 7,
    "aug": 8,
    "sep": 9,
    "oct": 10,
    "nov": 11,
    "dec": 12,
}
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}


class Unit(msgspec.Struct, frozen=True):
    """One of the five fields, and the numbers that it may hold.

    :param names: the names that belong into it.
    """

    name: str
    least: int
    count: int
    names: str = ""

    @property
    def most(self) -> int:
        """The largest number."""
        return self.least + self.count - 1


MINUTE = Unit("minute", 0, 60)
HOUR = Unit("hour", 0, 24)
DAY_OF_WEEK = Unit("day_of_week", 0, 7, "day")
DAY_OF_MONTH = Unit("day_of_month", 1, 31)
MONTH_OF_YEAR = Unit("month_of_year", 1, 12, "month")


class Reading(msgspec.Struct, frozen=True):
    """What a field's text means.

    :param numbers: ascending, none twice.
    :param oddities: of each part that means something else than it seems to, what it means.
    """

    numbers: tuple[int, ...]
    oddities: tuple[str, ...]


def field_text(unit: Unit, given: Field) -> str:
    """Return a field as text. Raises ``ScheduleError`` for what Celery refuses."""
    if isinstance(given, str):
        read_field(unit, given)
        return given
    numbers = [given] if isinstance(given, int) else _listed(unit, given)
    for number in numbers:
        if not unit.least <= number <= unit.most:
            raise ScheduleError(
                f"crontab({unit.name}={given!r:.100}): {number} is not from {unit.least} to {unit.most}"
            )
    return ",".join(str(int(number)) for number in sorted(set(numbers)))


@lru_cache(maxsize=4096)  # thousands of entries share a few texts
def read_field(unit: Unit, text: str) -> Reading:
    """Read a field's text. Raises ``ScheduleError`` for what Celery refuses, naming the part."""
    numbers: set[int] = set()
    oddities: list[str] = []
    for part in text.split(","):
        try:
            numbers.update(_read_part(unit, part, oddities))
        except ValueError as error:
            raise ScheduleError(f"crontab({unit.name}={text!r:.100}): {error}") from None
    return Reading(tuple(sorted(numbers)), tuple(oddities))


def _listed(unit: Unit, given: object) -> list[int]:
    if isinstance(given, Iterable):
        numbers = list(given)
        # An empty list never runs, which Celery takes without a word.
        if numbers and all(isinstance(number, int) for number in numbers):
            return numbers
    raise ScheduleError(
        f"crontab({unit.name}={given!r:.100}): give a number, numbers, or text such as '*/15'"
    )


def _read_part(unit: Unit, part: str, oddities: list[str]) -> list[int]:
    if not part:
        raise ValueError("a part between commas is empty")
    if found := _RANGE.match(part):
        first, last, slash, step = found.groups()
        numbers = _wrapped(unit, _number(unit, first, oddities), _number(unit, last, oddities))
    elif found := _STAR_STEP.match(part):
        slash, step = "/", found[1]
        numbers = list(range(unit.least, unit.most + 1))
    elif found := _STAR.match(part):
        return list(range(unit.least, unit.most + 1))
    else:
        return [_number(unit, part, oddities)]
    if found.end() < len(part):
        oddities.append(f"{part!r} is read as {found[0]!r}, the rest is ignored")
    return _stepped(numbers, step, part, oddities) if slash else numbers


def _stepped(numbers: list[int], step: str | None, part: str, oddities: list[str]) -> list[int]:
    if not step:
        raise ValueError(f"{part!r} has no number after the slash")
    width = int(step)
    if width == 0:
        raise ValueError(f"{part!r} has a step of 0")
    if width >= len(numbers) > 1:
        oddities.append(f"{part!r} is read as {numbers[0]}: the step is larger than the range")
    return numbers[::width]


def _wrapped(unit: Unit, first: int, last: int) -> list[int]:
    if first <= last:
        return list(range(first, last + 1))
    return [*range(first, unit.most + 1), *range(unit.least, last + 1)]


def _number(unit: Unit, text: str, oddities: list[str]) -> int:
    try:
        number = int(text)
    except ValueError:
        number = _named(unit, text, oddities)
    if not unit.least <= number <= unit.most:
        raise ValueError(f"{text!r} is not from {unit.least} to {unit.most}")
    return number


def _named(unit: Unit, text: str, oddities: list[str]) -> int:
    """Return the number of a month or day. Months come first, in any field: ``mar`` is 3 as a day of the week too."""
    short = text[:3].lower()
    kind, number = ("month", _MONTHS[short]) if short in _MONTHS else ("day", _WEEKDAYS.get(short))
    if number is None:
        raise ValueError(f"{text!r} is no number and no name of a day or month")
    if kind != unit.names:
        oddities.append(f"{text!r} is the name of a {kind}, read as {number}")
    return number
