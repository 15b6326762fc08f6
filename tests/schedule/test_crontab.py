"""When a crontab runs, at the changes of clocks above all: against a walk over every minute."""

from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from celeriac.errors import ConfigError
from celeriac.schedule.crontab import crontab, crontab_text
from celeriac.schedule.slots import latest_slots, schedule_of
from tests.schedule.brute import ZONES
from tests.schedule.expressions import differences, slots_of


@pytest.mark.parametrize("zone", ZONES)
def test_every_slot_around_every_change_of_clocks_is_that_of_a_walk_over_the_minutes(zone):
    assert differences(zone, seed=1, count=5, first=2027, last=2027) == []


def shown(schedule, zone, first, last):
    """What the clocks of the zone show at each slot after ``first``, times of day in the zone."""
    tz = ZoneInfo(zone)
    start, end = (datetime.fromisoformat(text).replace(tzinfo=tz).timestamp() for text in (first, last))
    return [f"{datetime.fromtimestamp(slot, tz):%d %H:%M %z}" for slot in slots_of(schedule, start, end)]


@pytest.mark.parametrize(
    ("zone", "day"), [("Europe/Berlin", "2026-10-25"), ("America/New_York", "2026-11-01")]
)
def test_a_task_of_every_minute_runs_in_both_passes_of_the_hour_that_comes_twice(zone, day):
    # Celery's crontab is silent in the second one.
    assert len(shown(crontab(tz=zone), zone, f"{day} 00:00", f"{day} 04:00")) == 5 * 60


def test_a_daily_task_is_neither_skipped_nor_doubled():
    daily = crontab(30, 2, tz="Europe/Berlin")
    assert shown(daily, "Europe/Berlin", "2026-03-28 12:00", "2026-03-30 12:00") == [
        "29 03:00 +0200",  # there is no 2:30: at the first moment after the gap
        "30 02:30 +0200",
    ]
    assert shown(daily, "Europe/Berlin", "2026-10-24 12:00", "2026-10-26 12:00") == [
        "25 02:30 +0200",  # 2:30 comes twice: the first time
        "26 02:30 +0100",
    ]


def test_a_schedule_that_follows_the_clock_does_not_run_in_the_gap():
    quarters = crontab("*/15", 2, tz="Europe/Berlin")
    assert shown(quarters, "Europe/Berlin", "2026-03-29 00:00", "2026-03-30 01:00") == []
    assert len(shown(quarters, "Europe/Berlin", "2026-10-25 00:00", "2026-10-25 12:00")) == 8


def test_where_midnight_is_skipped_the_day_begins_with_its_fixed_jobs():
    assert shown(crontab(0, 0, tz="Asia/Beirut"), "Asia/Beirut", "2026-03-28 12:00", "2026-03-29 12:00") == [
        "29 01:00 +0300"
    ]


def test_a_day_that_a_zone_left_out_runs_its_fixed_jobs_at_its_end():
    # Samoa went from the 29th to the 31st of December 2011.
    assert shown(
        crontab(0, 12, tz="Pacific/Apia"), "Pacific/Apia", "2011-12-29 00:00", "2012-01-01 00:00"
    ) == [
        "29 12:00 -1000",
        "31 00:00 +1400",
        "31 12:00 +1400",
    ]


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "UTC", "Asia/Tokyo", "Australia/Sydney"]
)
def test_cronsim_agrees_in_ordinary_zones(zone):
    random = Random(zone)
    for _ in range(40):
        # One of the two days is free: cronsim joins them with "or", as cron does.
        days = random.choice([("*/3", "*"), ("1-9", "*"), ("*", "1-5"), ("*", "*"), ("29", "*")])
        minute = random.choice(["*", "*/7", "3", "0,59"])
        hour = random.choice(["*", "*/5", "2", "0-4", "23"])
        text = f"{minute} {hour} {days[0]} {random.choice(['*', '2', '3,10'])} {days[1]}"
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=random.randrange(525_600))
        other = CronSim(text, start.astimezone(ZoneInfo(zone)))
        at, schedule = start.timestamp(), crontab_text(text, zone)
        for _ in range(15):
            at = schedule.next(at)
            assert at == next(other).timestamp(), f"{text} after {start}"


def test_days_of_the_week_and_of_the_month_must_both_match():
    friday = crontab(0, 0, day_of_week="fri", day_of_month=13)
    at = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert f"{datetime.fromtimestamp(friday.next(at), UTC):%Y-%m-%d}" == "2026-02-13"


def test_a_leap_day_on_a_monday_is_found_28_years_ahead():
    at = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    leap = crontab(0, 0, day_of_week="mon", day_of_month=29, month_of_year=2)
    assert f"{datetime.fromtimestamp(leap.next(at), UTC):%Y-%m-%d}" == "2044-02-29"


def test_a_day_that_never_comes_is_refused_as_in_celery():
    with pytest.raises(ValueError, match="never comes"):
        crontab(day_of_month=30, month_of_year=2)
    assert crontab(day_of_month="30,29", month_of_year=2)


@pytest.mark.parametrize("text", ["* * * *", "* * * * * *", "", "99 * * * *", "@daily"])
def test_text_that_is_no_crontab_is_refused(text):
    with pytest.raises(ConfigError, match="crontab"):
        schedule_of(text)


def test_the_order_of_a_line_of_crontab():
    assert crontab_text("1 2 3 4 5") == crontab(1, 2, day_of_week=5, day_of_month=3, month_of_year=4)


def test_a_zone_that_is_not_known_is_refused_by_name():
    with pytest.raises(ConfigError, match="Europe/Berln"):
        crontab(tz="Europe/Berln")


def test_the_latest_slots_of_a_long_time():
    hourly = crontab(0, tz="Europe/Berlin")
    end = datetime(2026, 11, 1, 0, 30, tzinfo=UTC).timestamp()
    assert latest_slots(hourly, 0.0, end, 0.0, 3) == [end - 1800 - 3600 * n for n in (2, 1, 0)]
    assert latest_slots(hourly, end - 3600, end, 0.0, 3) == [end - 1800]
    assert latest_slots(hourly, end - 60, end, 0.0, 3) == []
