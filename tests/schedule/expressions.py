"""Random crontabs, and the comparison of their slots with those of the brute-force walk."""

from __future__ import annotations

from datetime import timedelta
from random import Random

from celery.schedules import crontab_parser

from celeriac.schedule.crontab import Crontab, crontab
from celeriac.schedule.slots import slots_between
from tests.schedule.brute import Wall, changes

_SIZES = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
    "day_of_week": (7, 0),
}


def expression(random: Random) -> dict[str, str]:
    """Return a crontab, mostly one that runs near any given day."""
    return {
        "minute": random.choice(
            ["*", "*/15", "*/20", "0", "30", "0,30", "5-50/7", str(random.randrange(60))]
        ),
        "hour": random.choice(
            ["*", "*", "*/2", "*/6", "0-3", "22-4", "22-4/2", "1", "2", "3", "0", "23", "2,3,23"]
        ),
        "day_of_week": random.choice(["*", "*", "*", "sun", "sat,sun", "fri-mon", "*/2"]),
        "day_of_month": random.choice(["*", "*", "*", "*/2", "24-3", "1-15"]),
        "month_of_year": random.choice(["*", "*", "*", "*/2", "3,4,9-11"]),
    }


def numbers(fields: dict[str, str]) -> dict[str, set[int]]:
    """Return the numbers of each field, read by Celery."""
    return {unit: crontab_parser(*_SIZES[unit]).parse(text) for unit, text in fields.items()}


def differences(zone: str, seed: int, count: int, first: int, last: int) -> list[str]:
    """Compare random crontabs around every change of a zone's clocks in some years; return where they differ."""
    random, wrong = Random(f"{zone} {seed}"), []
    for change in changes(zone, first, last):
        wall = Wall(zone, change)
        for _ in range(count):
            fields = expression(random)
            start = wall.start + timedelta(hours=random.randrange(2, 30))
            mine = slots_of(crontab(**fields, tz=zone), start.timestamp(), wall.minutes[-1].timestamp())
            follows = fields["minute"].startswith("*") or fields["hour"].startswith("*")
            right = [at for at in wall.runs(numbers(fields), follows) if at > start.timestamp()]
            if mine != right:
                wrong.append(f"{fields} {zone} from {start}")
    return wrong


def slots_of(schedule: Crontab, start: float, end: float) -> list[float]:
    """Return the slots after ``start``, up to ``end``."""
    return list(slots_between(schedule, start, end, 0.0))
