"""When a crontab runs, found by looking at every minute: slow, and without the arithmetic under test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)

# With half hours, two hours, changes at midnight, negative daylight saving, none, and changes by the moon.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Europe/London",
    "Europe/Dublin",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Asuncion",
    "Asia/Beirut",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Atlantic/Azores",
    "Asia/Jerusalem",
    "America/Nuuk",
)


def changes(zone: str, first: int, last: int) -> list[datetime]:
    """Return the moments at which the zone's clocks are changed in these years, to the minute."""
    tz, found = ZoneInfo(zone), []
    hour = datetime(first, 1, 1, tzinfo=UTC)
    while hour.year <= last:
        later = hour + timedelta(hours=1)
        if hour.astimezone(tz).utcoffset() != later.astimezone(tz).utcoffset():
            minute = hour
            while minute.astimezone(tz).utcoffset() == hour.astimezone(tz).utcoffset():
                minute += MINUTE
            found.append(minute)
        hour = later
    return found


class Wall:
    """What the clocks of a zone show in each minute around a moment."""

    def __init__(self, zone: str, around: datetime, before: int = 32, after: int = 40) -> None:
        tz = ZoneInfo(zone)
        self.start = around - timedelta(hours=before)
        self.minutes = [self.start + n * MINUTE for n in range((before + after) * 60 + 1)]
        self.shown = [minute.astimezone(tz).replace(tzinfo=None) for minute in self.minutes]
        # Of fixed jobs: each wall time with the moment at which it runs, skipped ones at the end of their gap.
        self.fixed: list[tuple[datetime, datetime]] = []
        seen = set()
        for minute, shown, earlier in zip(self.minutes[1:], self.shown[1:], self.shown, strict=False):
            skipped = earlier + MINUTE
            while skipped < shown:
                self.fixed.append((skipped, minute))
                seen.add(skipped)
                skipped += MINUTE
            if shown not in seen:
                self.fixed.append((shown, minute))
                seen.add(shown)

    def runs(self, fields: dict[str, set[int]], follows_clock: bool) -> list[float]:
        """Return the moments at which a crontab runs here, after the first minute.

        :param fields: of each unit the numbers that match.
        """
        pairs = zip(self.shown[1:], self.minutes[1:], strict=True) if follows_clock else iter(self.fixed)
        hours, minutes = fields["hour"], fields["minute"]
        return sorted(
            {
                moment.timestamp()
                for shown, moment in pairs
                if shown.minute in minutes
                and shown.hour in hours
                and shown.day in fields["day_of_month"]
                and shown.month in fields["month_of_year"]
                and shown.isoweekday() % 7 in fields["day_of_week"]
            }
        )
